//! Names and numbers on the wire never change: `wire.txt` lists them, as compared by hand with etcd's own `rpc.proto` and `kv.proto`
//! (of August 2026). A line that changes breaks clients; lines may be added. `QUORATE_UPDATE_SCRIPTS=1` records them anew.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};
use std::fmt::Write;

fn field(of: &str, field: &FieldDescriptorProto, out: &mut String) {
    let kind = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    let label = if field.label() == Label::Repeated { "repeated " } else { "" };
    let of_one = if field.oneof_index.is_some() { "oneof " } else { "" };
    writeln!(out, "{of}.{} = {} {of_one}{label}{kind}", field.name(), field.number()).unwrap();
}

fn message(package: &str, of: &DescriptorProto, out: &mut String) {
    let name = format!("{package}.{}", of.name());
    of.field.iter().for_each(|one| field(&name, one, out));
    for one in &of.enum_type {
        for value in &one.value {
            writeln!(out, "{name}.{}.{} = {}", one.name(), value.name(), value.number()).unwrap();
        }
    }
    of.nested_type.iter().for_each(|one| message(&name, one, out));
}

fn file(of: &FileDescriptorProto, out: &mut String) {
    let package = of.package();
    for service in &of.service {
        for method in &service.method {
            let stream = |is: bool| if is { "stream " } else { "" };
            let (input, output) = (method.input_type(), method.output_type());
            let (client, server) = (stream(method.client_streaming()), stream(method.server_streaming()));
            let path = format!("/{package}.{}/{}", service.name(), method.name());
            writeln!(out, "{path} {client}{} -> {server}{}", &input[1..], &output[1..]).unwrap();
        }
    }
    for one in &of.enum_type {
        for value in &one.value {
            writeln!(out, "{package}.{}.{} = {}", one.name(), value.name(), value.number()).unwrap();
        }
    }
    of.message_type.iter().for_each(|one| message(package, one, out));
}

#[test]
fn names_and_numbers_are_etcds() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let files = protox::compile(["rpc.proto", "kv.proto"], [directory]).unwrap();
    let mut listed = String::new();
    files.file.iter().for_each(|one| file(one, &mut listed));
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire.txt");
    if std::env::var_os("QUORATE_UPDATE_SCRIPTS").is_some() {
        std::fs::write(golden, &listed).unwrap();
    }
    let expected = std::fs::read_to_string(golden).unwrap();
    for (line, (ours, recorded)) in listed.lines().zip(expected.lines()).enumerate() {
        assert_eq!(ours, recorded, "line {} of {golden}", line + 1);
    }
    assert_eq!(listed.lines().count(), expected.lines().count());
}
