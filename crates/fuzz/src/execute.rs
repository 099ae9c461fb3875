//! One execution of a target, and what is wrong with it.
//!
//! A panic and too much memory are told to the caller. What cannot be told any more is written down by whoever sees it: an allocation beyond all measure by the
//! allocator, an execution without end by a thread that watches. Both save the input and end the process. A stack that ends does so without a word; then the
//! campaign is run again with every input saved before its execution ([`Saving`]).

use crate::Target;
use crate::memory::{self, SPARE_BYTES};
use std::cell::RefCell;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

/// An execution takes milliseconds; one that takes so long does not end.
pub const SECONDS_MAX: u64 = 60;

/// What one execution came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was read as something.
    Accepted,
    /// It was refused.
    Refused,
    /// Something is wrong, and what.
    Wrong(String),
}

/// Where inputs are saved that something is wrong with, and when.
#[derive(Clone, Debug)]
pub struct Saving {
    /// The folder.
    pub folder: PathBuf,
    /// Every input, before its execution.
    pub is_each: bool,
}

/// Executes targets on this thread.
#[derive(Debug)]
pub struct Executor {
    saving: Saving,
    under_way: Arc<Mutex<Option<UnderWay>>>,
}

#[derive(Debug)]
struct UnderWay {
    target: &'static str,
    input: Vec<u8>,
    folder: PathBuf,
    since: Instant,
}

thread_local! {
    /// What the allocator saves when it has to end the process.
    static OWN: RefCell<Option<Arc<Mutex<Option<UnderWay>>>>> = const { RefCell::new(None) };
    /// What was said by the last panic of this thread, while one is expected.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

impl Executor {
    /// One for this thread; a second one takes the place of the first.
    pub fn new(saving: Saving) -> Self {
        listen_to_panics();
        let under_way = Arc::new(Mutex::new(None));
        OWN.set(Some(under_way.clone()));
        let watched = Arc::downgrade(&under_way);
        std::thread::spawn(move || {
            while let Some(under_way) = watched.upgrade() {
                if let Some(found) = &*under_way.lock().unwrap_or_else(PoisonError::into_inner)
                    && found.since.elapsed() > Duration::from_secs(SECONDS_MAX)
                {
                    found.end_process(&format!("it has not ended after {SECONDS_MAX} s"));
                }
                drop(under_way);
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        Self { saving, under_way }
    }

    /// Executes a target on an input.
    pub fn run(&self, target: &Target, input: &[u8]) -> Outcome {
        let folder = self.saving.folder.clone();
        if self.saving.is_each {
            save(&folder, target.name, "last", input);
        }
        let since = Instant::now();
        *self.lock() = Some(UnderWay { target: target.name, input: input.to_vec(), folder, since });
        SAID.set(Some(String::new()));
        let work = || catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
        let (ended, bytes) = memory::measured(out_of_memory, work);
        let said = SAID.take().unwrap_or_default();
        *self.lock() = None;
        match ended {
            Err(_) => Outcome::Wrong(said),
            Ok(_) if bytes > SPARE_BYTES + input.len() => {
                Outcome::Wrong(format!("it had {bytes} bytes of memory in use for {} of input", input.len()))
            }
            Ok(true) => Outcome::Accepted,
            Ok(false) => Outcome::Refused,
        }
    }

    /// Saves an input that something is wrong with; where.
    pub fn save(&self, target: &Target, input: &[u8]) -> PathBuf {
        let name = format!("{:08x}", crc32c::crc32c(input));
        save(&self.saving.folder, target.name, &name, input)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay {
    fn end_process(&self, what: &str) -> ! {
        let path =
            save(&self.folder, self.target, &format!("{:08x}", crc32c::crc32c(&self.input)), &self.input);
        // Not by a macro for printing, whose words a test keeps to itself until it ends. If nobody can be told, the input is there all the same.
        let _ = writeln!(std::io::stderr(), "{}: {what}\n{}", self.target, how_to_replay(self.target, &path));
        std::process::abort();
    }
}

/// What to tell whoever sees a failure.
pub fn how_to_replay(target: &str, path: &Path) -> String {
    let path = path.display();
    format!("the input is in {path}; again: cargo run -p quorate-fuzz -- --target {target} --replay {path}")
}

fn save(folder: &Path, target: &str, name: &str, input: &[u8]) -> PathBuf {
    let path = folder.join(format!("{target}-{name}"));
    let write = || {
        std::fs::create_dir_all(folder)?;
        std::fs::write(&path, input)
    };
    if let Err(error) = write() {
        eprintln!("{}: {error}", path.display());
    }
    path
}

fn out_of_memory(bytes: usize) -> ! {
    OWN.with_borrow(|own| {
        let own = own.as_ref().map(|own| own.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(Some(under_way)) = own.as_deref() {
            under_way.end_process(&format!("it asks for {bytes} bytes of memory"));
        }
    });
    std::process::abort()
}

/// Panics of executions are kept, others said as ever.
fn listen_to_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let is_expected =
                SAID.with_borrow_mut(|said| said.as_mut().map(|said| *said = panic.to_string()).is_some());
            if !is_expected {
                before(panic);
            }
        }));
    });
}
