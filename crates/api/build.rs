//! Turns the protocol files into Rust, without a protoc on the machine.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["rpc.proto", "kv.proto", "part.proto"], ["proto"])?;
    let mut config = prost_build::Config::new();
    // Keys and values share the buffer they came in.
    config.bytes(["."]);
    tonic_prost_build::configure().compile_fds_with_config(files, config)?;
    Ok(())
}
