//! The binary, called as a user calls it. Each test uses a part of this.
#![allow(dead_code)]

use std::{
    path::Path,
    process::{Command, Output},
};

pub fn narthex(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_narthex"));
    command
        .current_dir(folder)
        .args(args)
        .env_remove("NARTHEX_SET")
        .env_remove("OPENLINEAGE_URL")
        .env("XDG_CONFIG_HOME", folder.join("no-config"));
    command
}

pub fn output(folder: &Path, args: &[&str]) -> Output {
    narthex(folder, args).output().unwrap()
}

/// Runs a command that must succeed; gives its stdout.
pub fn succeed(folder: &Path, args: &[&str]) -> String {
    let output = output(folder, args);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "narthex {args:?}: {}\n{stdout}\n{stderr}", output.status);
    stdout.into_owned()
}

/// Runs a command that must fail with this code; gives its stderr.
pub fn fail(folder: &Path, args: &[&str], code: i32) -> String {
    let output = output(folder, args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "narthex {args:?}\n{stderr}");
    stderr
}

/// The digest that a name points to.
pub fn digest(folder: &Path, name: &str) -> String {
    let shown: serde_json::Value = serde_json::from_str(&succeed(folder, &["show", name, "--json"])).unwrap();
    shown["digest"].as_str().unwrap().to_string()
}
