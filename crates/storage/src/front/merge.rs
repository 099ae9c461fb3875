//! The rows of several layers and of the base, as those of one table.

use super::layer::LayerView;
use crate::memory::is_inverted;
use quorate_mvcc::engine::{Row, RowRange, Rows, Table};
use quorate_types::{Bytes, Fault};
use std::collections::VecDeque;
use std::ops::Bound::{self, Excluded};

/// Rows read from a layer at a time: few at first, since often the first is all that is wanted.
const PAGE_ROWS_MIN: usize = 2;
const PAGE_ROWS_MAX: usize = 64;

/// The rows of a layer in a range, a page at a time.
pub(super) struct Cursor {
    view: LayerView,
    table: Table,
    /// What was not read yet; `None` if everything was.
    rest: Option<RowRange>,
    is_back: bool,
    page_rows: usize,
    page: VecDeque<(Bytes, Option<Bytes>)>,
}

impl Cursor {
    /// The range must not be inverted.
    pub(super) fn new(view: LayerView, table: Table, range: RowRange, is_back: bool) -> Self {
        let mut cursor =
            Self { view, table, rest: Some(range), is_back, page_rows: PAGE_ROWS_MIN, page: VecDeque::new() };
        cursor.fill();
        cursor
    }

    /// Reads on until there are rows, or no more of them.
    fn fill(&mut self) {
        while self.page.is_empty()
            && let Some((start, end)) = self.rest.take()
        {
            let bounds = (borrowed(&start), borrowed(&end));
            let edge = self.view.page(self.table, bounds, self.is_back, self.page_rows, &mut self.page);
            self.page_rows = (4 * self.page_rows).min(PAGE_ROWS_MAX);
            if let Some(edge) = edge.map(Excluded) {
                let rest = if self.is_back { (start, edge) } else { (edge, end) };
                self.rest = Some(rest).filter(|rest| !is_inverted(rest));
            }
        }
    }

    /// Whether there are no more rows.
    pub(super) fn is_over(&self) -> bool {
        self.page.is_empty() && self.rest.is_none()
    }

    fn head(&self) -> Option<&Bytes> {
        self.page.front().map(|(key, _)| key)
    }

    fn pop(&mut self) -> Option<(Bytes, Option<Bytes>)> {
        let row = self.page.pop_front();
        self.fill();
        row
    }
}

pub(super) fn borrowed(bound: &Bound<Bytes>) -> Bound<&[u8]> {
    bound.as_ref().map(|key| &key[..])
}

/// All of them in order; of a row that several have, the first of them counts.
pub(super) struct Merged {
    /// Newest first.
    pub(super) layers: Vec<Cursor>,
    pub(super) base: std::iter::Peekable<Rows<'static>>,
    pub(super) is_back: bool,
    pub(super) is_over: bool,
}

impl Merged {
    fn step(&mut self) -> Result<Option<Row>, Fault> {
        loop {
            let base = match self.base.peek() {
                Some(Ok((key, _))) => Some(key),
                // It is taken out below.
                Some(Err(_)) => return self.base.next().transpose(),
                None => None,
            };
            let heads = self.layers.iter().filter_map(Cursor::head).chain(base);
            let next = if self.is_back { heads.max() } else { heads.min() };
            let Some(next) = next.cloned() else { return Ok(None) };
            let mut found = None;
            for cursor in &mut self.layers {
                if cursor.head() == Some(&next) {
                    let row = cursor.pop();
                    found = found.or(row);
                }
            }
            let is_next = |row: &Result<Row, Fault>| matches!(row, Ok((key, _)) if *key == next);
            let base = self.base.next_if(is_next).transpose()?;
            match found {
                Some((key, Some(value))) => return Ok(Some((key, value))),
                Some((_, None)) => {}
                None => return Ok(base),
            }
        }
    }
}

impl Iterator for Merged {
    type Item = Result<Row, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let item = self.step().transpose();
        self.is_over = !matches!(item, Some(Ok(_)));
        item
    }
}
