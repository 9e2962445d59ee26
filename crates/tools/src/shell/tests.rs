//! Commands that try to get more than they were given, behind every wall that works on this machine.

use super::*;
use narthex_agent::Content;
use serde_json::json;
use std::{fs, io::Read, os::unix::fs::symlink};

/// A folder to read, one to write, a secret beside them, and a script in the first.
fn room(script: &str) -> tempfile::TempDir {
    let room = tempfile::tempdir().unwrap();
    for folder in ["read", "write", "secret"] {
        fs::create_dir(room.path().join(folder)).unwrap();
        fs::write(room.path().join(folder).join("file"), format!("in {folder}\n")).unwrap();
    }
    symlink(room.path().join("secret/file"), room.path().join("read/link")).unwrap();
    fs::write(room.path().join("read/script"), script).unwrap();
    room
}

fn settings(room: &Path, command: &str) -> ShellTool {
    let text = format!(
        "description = \"d\"\ncommand = {command}\nfolder = {:?}\nwritable = [{:?}]\n\
         [arguments]\nvalue = {{ optional = true }}\n[limits]\nresult_bytes_max = 2000",
        room.join("read"),
        room.join("write")
    );
    ShellTool { sandbox: SandboxKind::None, ..toml::from_str(&text).unwrap() }
}

/// Behind walls that were probed before.
async fn called(settings: &ShellTool, sandbox: &Sandbox, value: &str) -> (bool, String) {
    let shell = Shell { sandbox: sandbox.clone(), ..Shell::new("t", settings).unwrap() };
    let result = shell.call(json!({"value": value}).as_object().unwrap()).await.unwrap();
    let [Content::Text { text }] = &result.content[..] else { panic!("one text: {result:?}") };
    (result.is_error, text.clone())
}

/// The walls that work here. Where none does, the refusal must say why.
fn working() -> Vec<Sandbox> {
    let room = room("");
    let settings = settings(room.path(), "[\"true\", \"{value}\"]");
    let probe = |sandbox| match Shell::new("t", &ShellTool { sandbox, ..settings.clone() }) {
        Ok(shell) => Some(shell.sandbox),
        Err(error) => {
            assert!(error.to_string().contains("no sandbox works on this machine"), "{error}");
            assert!(!error.causes().is_empty() && error.help_text().unwrap().contains("sandbox = \"none\""), "{error}");
            None
        }
    };
    [SandboxKind::Bubblewrap, SandboxKind::Namespaces].into_iter().filter_map(probe).collect()
}

#[tokio::test]
async fn walls_hold() {
    let room = room("");
    let path = |path: &str| room.path().join(path).display().to_string();
    let (inside, secret, written) = (path("read/file"), path("secret/file"), path("write/new"));
    for kind in working() {
        for (command, value, is_error, part) in [
            ("[\"cat\", \"{value}\"]", "file", false, "in read"),
            ("[\"cat\", \"{value}\"]", &inside, false, "in read"),
            ("[\"cat\", \"{value}\"]", &path("write/file"), false, "in write"),
            ("[\"cat\", \"{value}\"]", &secret, true, "No such file"),
            ("[\"cat\", \"{value}\"]", "link", true, "No such file"),
            ("[\"cat\", \"{value}\"]", "/etc/passwd", true, "No such file"),
            ("[\"cat\", \"{value}\"]", "/proc/1/root/etc/passwd", true, ""),
            ("[\"ls\", \"{value}\"]", "/root", true, "No such file"),
            ("[\"touch\", \"{value}\"]", &written, false, "wrote nothing"),
            ("[\"touch\", \"{value}\"]", &inside, true, "Read-only"),
            ("[\"touch\", \"{value}\"]", "/usr/x", true, "Read-only"),
            ("[\"touch\", \"{value}\"]", "/x", true, "Read-only"),
            ("[\"touch\", \"{value}\"]", "/tmp/x", false, "wrote nothing"),
            ("[\"mount\", \"-o\", \"remount,bind,rw\", \"{value}\"]", &path("read"), true, ""),
            ("[\"chroot\", \"{value}\", \"true\"]", "/usr", true, ""),
            ("[\"grep\", \"{value}\", \"/proc/self/status\"]", "CapEff:\t0000000000000000", false, "CapEff"),
            ("[\"grep\", \"{value}\", \"/proc/self/status\"]", "CapBnd:\t0000000000000000", false, "CapBnd"),
            ("[\"test\", \"-w\", \"{value}\"]", "/proc/sys/kernel/core_pattern", true, ""),
            ("[\"test\", \"-w\", \"{value}\"]", "/proc/sysrq-trigger", true, ""),
            ("[\"grep\", \"-c\", \"{value}\", \"/proc/net/dev\"]", ":", false, "1"),
            ("[\"sh\", \"-c\", \"echo /proc/[0-9]* | wc -w | grep -x '[1-9]'\", \"sh\", \"{value}\"]", "", false, ""),
        ] {
            let (was_error, text) = called(&settings(room.path(), command), &kind, value).await;
            assert!(was_error == is_error && text.contains(part), "{kind:?} {command} {value}: {text}");
        }
        assert!(fs::exists(&written).unwrap(), "{kind:?}");
        fs::remove_file(&written).unwrap();
        // Only what is named comes with it.
        let (_, variables) = called(&settings(room.path(), "[\"env\", \"-u\", \"{value}\"]"), &kind, "X").await;
        let names: Vec<&str> = variables.lines().filter_map(|line| line.split('=').next()).collect();
        assert!(
            names.iter().all(|name| ["HOME", "LANG", "PATH", "PWD", "OLDPWD", "SHLVL", "_"].contains(name)),
            "{variables}"
        );
    }
    assert!(!room.path().join("secret/new").exists());
}

#[tokio::test]
async fn limits_hold() {
    let room = room("");
    let kinds = working().into_iter().chain([Sandbox::None]);
    for kind in kinds {
        let make = |command: &str, change: fn(&mut ShellTool)| {
            let mut settings = settings(room.path(), command);
            change(&mut settings);
            settings
        };
        for (settings, value, is_error, part) in [
            (make("[\"yes\", \"{value}\"]", |s| s.limits.wall_ms = 150), "x", true, "stopped after 150 ms"),
            (
                make("[\"head\", \"-c\", \"{value}\", \"/dev/zero\"]", |_| {}),
                "10000000",
                false,
                "[cut: 9998000 bytes more",
            ),
            (
                make("[\"dd\", \"if=/dev/zero\", \"of=/dev/null\", \"count=1\", \"bs={value}\"]", |s| {
                    s.limits.memory_bytes = 64 << 20
                }),
                "1G",
                true,
                "memory",
            ),
            (
                make("[\"dd\", \"if=/dev/zero\", \"of=../write/big\", \"count=2\", \"bs={value}\"]", |s| {
                    s.limits.file_bytes = 1 << 20
                }),
                "1M",
                true,
                "",
            ),
            (make("[\"false\", \"{value}\"]", |_| {}), "x", true, "ended with status 1"),
            (make("[\"cat\", \"{value}\"]", |_| {}), "none", true, "cat: none: No such file"),
        ] {
            let (was_error, text) = called(&settings, &kind, value).await;
            assert!(was_error == is_error && text.contains(part), "{kind:?} {:?}: {text}", settings.command);
            assert!(text.len() < 2000 + COMPLAINT_BYTES_MAX + 200, "{kind:?}: {} bytes", text.len());
        }
        assert!(fs::metadata(room.path().join("write/big")).unwrap().len() <= 1 << 20);
    }
    // A second of processor time is the least there is: once is enough.
    let mut busy = settings(room.path(), "[\"sh\", \"-c\", \"while :; do :; done\", \"{value}\"]");
    busy.limits.cpu_s = 1;
    let (was_error, text) = called(&busy, &Sandbox::None, "x").await;
    assert!(was_error && text.contains("killed by signal"), "{text}");
}

#[tokio::test]
async fn nothing_is_left_behind() {
    let script = "echo started > ../write/pipe\nsleep 1000 > ../write/pipe &\nexec 3> ../write/pipe\nsleep 1000";
    for kind in working().into_iter().chain([Sandbox::None]) {
        for is_dropped in [true, false] {
            let room = room(script);
            let pipe = room.path().join("write/pipe");
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
            let mut settings = settings(room.path(), "[\"sh\", \"script\", \"{value}\"]");
            if !is_dropped {
                settings.limits.wall_ms = 150;
            }
            let call = {
                let behind = kind.clone();
                tokio::spawn(async move { called(&settings, &behind, "x").await })
            };
            let at = pipe.clone();
            let reader = tokio::task::spawn_blocking(move || {
                let mut pipe = fs::File::open(at).unwrap();
                let mut first = [0; 8];
                pipe.read_exact(&mut first).map(|()| pipe)
            });
            let (outcome, pipe) = if is_dropped {
                let pipe = reader.await.unwrap().unwrap();
                call.abort();
                (call.await, Some(pipe))
            } else {
                let outcome = call.await;
                // Where the time was over before the script began, the reader waits for somebody to open the pipe.
                let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
                drop(rustix::fs::open(&pipe, flags, mode));
                (outcome, reader.await.unwrap().ok())
            };
            assert_eq!(outcome.is_err(), is_dropped, "{kind:?}");
            // The pipe ends once nobody holds it any more: that is, once all of them are gone.
            let mut rest = String::new();
            pipe.map(|mut pipe| pipe.read_to_string(&mut rest).unwrap());
            assert_eq!(rest, "", "{kind:?}");
        }
    }
}

#[tokio::test]
async fn what_a_command_leaves_running_ends_with_it() {
    let room = room("sleep 1000 & echo done");
    for kind in working().into_iter().chain([Sandbox::None]) {
        // Were the sleeper left, the call would wait for its output until the time is over.
        let outcome = called(&settings(room.path(), "[\"sh\", \"script\", \"{value}\"]"), &kind, "x").await;
        assert_eq!(outcome, (false, "done".into()), "{kind:?}");
    }
}

#[test]
fn walls_are_built_of_these_arguments() {
    let room = room("");
    let path = |path: &str| room.path().canonicalize().unwrap().join(path);
    let walls = Walls {
        folder: path("read"),
        readable: vec![path("write/file"), path("read")],
        writable: vec![path("write")],
        network: false,
        processes: 9,
    };
    let has = |argv: &[String], part: &[&str]| argv.windows(part.len()).any(|window| window == part);
    let at = |argv: &[String], text: &str| argv.iter().position(|argument| argument == text).unwrap();
    let (read, write, file) = (
        path("read").display().to_string(),
        path("write").display().to_string(),
        path("write/file").display().to_string(),
    );
    let command = ["/usr/bin/cat".to_string(), "--".into(), "x".into()];
    let bubblewrap = Sandbox::Bubblewrap("/b".into()).argv(&walls, &command).unwrap();
    for part in [
        &["--unshare-net"][..],
        &["--unshare-user"],
        &["--unshare-pid"],
        &["--die-with-parent"],
        &["--new-session"],
        &["--cap-drop", "ALL"],
        &["--ro-bind-try", "/proc/sys", "/proc/sys"],
        &["--ro-bind", &read, &read],
        &["--bind", &write, &write],
        &["--ro-bind", &file, &file],
        &["--chdir", &read, "--"],
        &["/usr/bin/cat", "--", "x"],
    ] {
        assert!(has(&bubblewrap, part), "{part:?} in {bubblewrap:?}");
    }
    // The file within the writable folder comes behind it, so that it stays read-only.
    assert!(at(&bubblewrap, &write) < at(&bubblewrap, &file));
    for bind in ["--bind", "--ro-bind"] {
        assert!(!["/", "/etc", "/home", "/root"].iter().any(|path| has(&bubblewrap, &[bind, path])), "{bubblewrap:?}");
    }
    let namespaces = Sandbox::Namespaces("/u".into()).argv(&walls, &command).unwrap();
    for part in [
        &["--net"][..],
        &["ro", &read],
        &["rw", &write],
        &["dev", "null"],
        &["switch", "sys"],
        &["/usr/bin/cat", "--", "x"],
    ] {
        assert!(has(&namespaces, part), "{part:?} in {namespaces:?}");
    }
    let open = Walls { network: true, ..walls.clone() };
    assert!(!Sandbox::Bubblewrap("/b".into()).argv(&open, &command).unwrap().contains(&"--unshare-net".into()));
    assert!(!Sandbox::Namespaces("/u".into()).argv(&open, &command).unwrap().contains(&"--net".into()));
    let odd = Walls { readable: vec!["/a b".into()], ..walls.clone() };
    assert!(Sandbox::Namespaces("/u".into()).argv(&odd, &command).unwrap_err().contains("only bubblewrap"));
    assert_eq!(Sandbox::None.argv(&walls, &command).unwrap(), command);
}

#[test]
fn what_cannot_be_is_refused() {
    let room = room("");
    let good = settings(room.path(), "[\"true\", \"{value}\"]");
    // No program for a sandbox is where it is looked for.
    let walls = Walls { folder: room.path().into(), processes: 9, ..Walls::default() };
    let error = Sandbox::probe(SandboxKind::Auto, &walls, "/nonexistent").unwrap_err();
    assert_eq!(
        error.causes(),
        ["bubblewrap: there is no program `bwrap`", "namespaces: there is no program `unshare`"]
    );
    // Programs that are there and do not do it: as where the kernel refuses namespaces.
    let bin = room.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for (name, text) in [("bwrap", "#!/bin/sh\necho no permissions >&2; exit 1"), ("true", "")] {
        fs::write(bin.join(name), text).unwrap();
        fs::set_permissions(bin.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let error = Sandbox::probe(SandboxKind::Bubblewrap, &walls, bin.to_str().unwrap()).unwrap_err();
    assert!(error.causes()[0].contains("bubblewrap: no permissions (exit status: 1)"), "{error}");
    assert_eq!(Sandbox::probe(SandboxKind::None, &walls, "").unwrap(), Sandbox::None);
    for (settings, part) in [
        (
            ShellTool { command: vec!["no-such-program".into(), "{value}".into()], ..good.clone() },
            "no program `no-such-program`",
        ),
        (ShellTool { folder: "/none".into(), ..good.clone() }, "cannot open /none"),
        (ShellTool { readable: vec!["/none".into()], ..good.clone() }, "cannot open /none"),
        (ShellTool { environment: vec!["NO_SUCH_VARIABLE".into()], ..good.clone() }, "`NO_SUCH_VARIABLE` is not set"),
        (ShellTool { limits: ShellLimits { wall_ms: 0, ..ShellLimits::default() }, ..good.clone() }, "`wall_ms`"),
        (ShellTool { limits: ShellLimits { processes: 1, ..ShellLimits::default() }, ..good.clone() }, "`processes`"),
    ] {
        let error = shell("t", &settings).err().unwrap();
        assert!(error.to_string().contains(part) && error.what().contains("the tool `t`"), "{error}");
    }
    let definition = shell("t", &good).unwrap()[0].definition().clone();
    assert_eq!((definition.effect, definition.description.as_str()), (Effect::Reaches, "d Runs `true {value}`."));
    assert!(toml::from_str::<ShellTool>("description = \"\"\ncommand = [\"a\"]\nfolder = \".\"\nshell = 1").is_err());
}
