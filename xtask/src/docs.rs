//! The documentation's command blocks, run: every page in a fresh folder, in order, as a reader would
//! type them. Knows Markdown's fences and bash, nothing of what the commands do.
//!
//! What a page may hold:
//!
//! * ` ```console `: lines that begin with `$ ` are run; `> ` continues the line above; what follows is the
//!   output to expect. `…` stands for anything, over several lines too; digests, numbers with a fraction and
//!   the width of spaces may differ. No output given: any will do. A command must succeed, unless the output
//!   given has a line that begins with `error:`.
//! * A command that ends in ` &` is started, waited for until its port answers (`--port N`, else 8000),
//!   and ended with the page.
//! * ` ```console,ignore `: not run.
//! * ` ```toml,file=narthex.toml ` (or any language): written to that file; with `append=`, added to it.
//!
//! Relative links between pages are checked too.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const USAGE: &str = "\
usage: cargo xtask docs --binary PATH [--page NAME] [--keep] [--list]

  --binary PATH  the narthex to run
  --page NAME    only pages whose path holds NAME; may be given several times
  --keep         leave the pages' folders where they are, and say where
  --list         print what would be run, and run nothing";

/// How long one command may take.
const COMMAND_S: u64 = 600;
/// How long a server may take to start, and its output to come.
const START_S: u64 = 60;
/// Time between two looks.
const POLL: Duration = Duration::from_millis(50);
/// So many hexadecimal digits in a row are a digest, an identifier or a time.
const DIGEST_DIGITS: usize = 10;
/// The port of a server that names none.
const PORT_DEFAULT: u16 = 8000;

#[derive(Default)]
struct Options {
    binary: Option<PathBuf>,
    pages: Vec<String>,
    keep: bool,
    list: bool,
}

/// Something to do on a page, and the line it stands on.
#[derive(Debug, PartialEq, Eq)]
struct Action {
    line: usize,
    what: What,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Run { command: String, expected: String },
    Write { path: String, text: String, append: bool },
}

/// Runs all pages; an error if a command or link failed.
pub fn run(arguments: &[String]) -> Result<(), String> {
    let Some(options) = read_options(arguments)? else {
        println!("{USAGE}");
        return Ok(());
    };
    let sources = crate::tidy::root().join("docs/src");
    let mut failures = 0;
    let mut fail = |place: String, why: String| {
        eprintln!("{place}: {why}");
        failures += 1;
    };
    for path in pages(&sources)? {
        let name = path.strip_prefix(&sources).unwrap_or(&path).display().to_string();
        if !options.pages.is_empty() && !options.pages.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        for (line, link) in broken_links(&path, &text) {
            fail(format!("{name}:{line}"), format!("the link to `{link}` leads nowhere"));
        }
        let actions = match actions(&text) {
            Ok(actions) => actions,
            Err((line, why)) => {
                fail(format!("{name}:{line}"), why);
                continue;
            }
        };
        if options.list {
            actions.iter().for_each(|action| println!("{name}:{}: {}", action.line, action.what.title()));
            continue;
        }
        let start = Instant::now();
        match run_page(&name, &actions, &options) {
            Ok(0) => {}
            Ok(count) => println!("{name}: {count} commands in {:.1} s", start.elapsed().as_secs_f64()),
            Err((line, why)) => fail(format!("{name}:{line}"), why),
        }
    }
    if failures > 0 { Err(format!("error: {failures} failed")) } else { Ok(()) }
}

fn read_options(arguments: &[String]) -> Result<Option<Options>, String> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().cloned().ok_or_else(|| format!("error: `{argument}` needs a value\n{USAGE}"));
        match argument.as_str() {
            "--binary" => {
                let path = value()?;
                let found = fs::canonicalize(&path).map_err(|error| format!("error: there is no {path}: {error}"))?;
                options.binary = Some(found);
            }
            "--page" => options.pages.push(value()?),
            "--keep" => options.keep = true,
            "--list" => options.list = true,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("error: there is no option `{other}`\n{USAGE}")),
        }
    }
    if options.binary.is_none() && !options.list {
        return Err(format!("error: `--binary` is missing\n{USAGE}"));
    }
    Ok(Some(options))
}

/// The pages, sorted.
fn pages(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))? {
            let path = entry.map_err(|error| format!("cannot read {}: {error}", folder.display()))?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A fenced block: the line of its first content, its info string, its content.
struct Block<'a> {
    line: usize,
    info: &'a str,
    lines: Vec<&'a str>,
}

fn blocks(text: &str) -> Result<Vec<Block<'_>>, (usize, String)> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(info), None) => open = Some(Block { line: number + 2, info: info.trim(), lines: vec![] }),
            (Some(info), Some(block)) if info.trim().is_empty() => blocks.push(block),
            (_, Some(mut block)) => {
                block.lines.push(line);
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    match open {
        Some(block) => Err((block.line - 1, "this block is not closed".into())),
        None => Ok(blocks),
    }
}

/// What a page asks to be done, in order.
fn actions(text: &str) -> Result<Vec<Action>, (usize, String)> {
    let mut actions: Vec<Action> = Vec::new();
    for block in blocks(text)? {
        let words: Vec<&str> = block.info.split(',').map(str::trim).collect();
        for (prefix, append) in [("file=", false), ("append=", true)] {
            if let Some(path) = words.iter().find_map(|word| word.strip_prefix(prefix)) {
                if Path::new(path).is_absolute() || path.split('/').any(|part| part == "..") {
                    return Err((block.line - 1, format!("`{path}` leaves the page's folder")));
                }
                let text = block.lines.iter().map(|line| format!("{line}\n")).collect();
                actions.push(Action { line: block.line, what: What::Write { path: path.into(), text, append } });
            }
        }
        if words[0] != "console" {
            continue;
        }
        match words[1..] {
            [] => actions.extend(commands(&block)?),
            ["ignore"] => {}
            _ => return Err((block.line - 1, format!("`{}` is neither `console` nor `console,ignore`", block.info))),
        }
    }
    Ok(actions)
}

fn commands(block: &Block) -> Result<Vec<Action>, (usize, String)> {
    let mut actions: Vec<Action> = Vec::new();
    for (offset, line) in block.lines.iter().enumerate() {
        let number = block.line + offset;
        if let Some(command) = line.strip_prefix("$ ") {
            let what = What::Run { command: command.into(), expected: String::new() };
            actions.push(Action { line: number, what });
            continue;
        }
        let Some(Action { what: What::Run { command, expected }, .. }) = actions.last_mut() else {
            return Err((number, "a console block begins with a command: `$ …`".into()));
        };
        match line.strip_prefix("> ") {
            Some(more) if expected.is_empty() => *command += &format!("\n{more}"),
            _ => *expected += &format!("{line}\n"),
        }
    }
    Ok(actions)
}

impl What {
    fn title(&self) -> String {
        match self {
            What::Run { command, .. } => format!("$ {command}"),
            What::Write { path, append, .. } => format!("{} {path}", if *append { "adds to" } else { "writes" }),
        }
    }
}

/// A page's folder, and what runs in it.
struct Session {
    folder: PathBuf,
    current: PathBuf,
    path: String,
    keep: bool,
    servers: Vec<Child>,
}

impl Drop for Session {
    fn drop(&mut self) {
        for server in &mut self.servers {
            // It may have ended by itself; then there is nothing to do.
            _ = server.kill();
            _ = server.wait();
        }
        if self.keep {
            println!("kept {}", self.folder.display());
        } else {
            _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Does what a page asks for; the number of commands run, or the line and the reason of the first failure.
fn run_page(name: &str, actions: &[Action], options: &Options) -> Result<usize, (usize, String)> {
    if actions.is_empty() {
        return Ok(0);
    }
    let mut session = Session::start(name, options).map_err(|why| (1, why))?;
    let mut count = 0;
    for Action { line, what } in actions {
        let done = match what {
            What::Write { path, text, append } => session.write(path, text, *append),
            What::Run { command, expected } => {
                count += 1;
                match command.strip_suffix(" &") {
                    Some(server) => session.serve(server, expected),
                    None => session.command(command, expected),
                }
            }
        };
        done.map_err(|why| (*line, why))?;
    }
    Ok(count)
}

impl Session {
    fn start(name: &str, options: &Options) -> Result<Self, String> {
        let name = name.replace(['/', '.'], "-");
        let folder = env::temp_dir().join(format!("narthex-docs-{}-{name}", std::process::id()));
        let fail = |error| format!("cannot make {}: {error}", folder.display());
        let (bin, current) = (folder.join("bin"), folder.join("page"));
        for made in [&bin, &current, &folder.join("config")] {
            fs::create_dir_all(made).map_err(fail)?;
        }
        let binary = options.binary.as_ref().ok_or("no binary is given")?;
        symlink(binary, bin.join("narthex")).map_err(fail)?;
        let path = format!("{}:{}", bin.display(), env::var("PATH").unwrap_or_default());
        Ok(Self { folder, current, path, keep: options.keep, servers: vec![] })
    }

    fn write(&self, path: &str, text: &str, append: bool) -> Result<(), String> {
        let path = self.current.join(path);
        let fail = |error| format!("cannot write {}: {error}", path.display());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(fail)?;
        }
        let before = if append { fs::read_to_string(&path).map_err(fail)? } else { String::new() };
        fs::write(&path, before + text).map_err(fail)
    }

    /// Bash with both outputs in one file, as a terminal shows them.
    fn bash(&self, script: &str, output: &Path) -> Result<Child, String> {
        let fail = |error| format!("cannot start bash: {error}");
        let stdout = fs::File::create(output).map_err(fail)?;
        let stderr = stdout.try_clone().map_err(fail)?;
        Command::new("bash")
            .args(["-c", script])
            .current_dir(&self.current)
            .env("PATH", &self.path)
            .env("XDG_CONFIG_HOME", self.folder.join("config"))
            .env("NO_COLOR", "1")
            .env("LC_ALL", "C.UTF-8")
            .env_remove("NARTHEX_SET")
            .env_remove("NARTHEX_API_KEY")
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0)
            .spawn()
            .map_err(fail)
    }

    /// Runs a command to its end. Where it changes the folder, the next one starts there.
    fn command(&mut self, command: &str, expected: &str) -> Result<(), String> {
        let (output, folder) = (self.folder.join("output"), self.folder.join("folder"));
        let script = format!("{command}\nstatus=$?; pwd > '{}'; exit $status", folder.display());
        let mut child = self.bash(&script, &output)?;
        let start = Instant::now();
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if start.elapsed() < Duration::from_secs(COMMAND_S) => thread::sleep(POLL),
                Ok(None) => {
                    _ = child.kill();
                    _ = child.wait();
                    return Err(format!("`{command}` took more than {COMMAND_S} s"));
                }
                Err(error) => return Err(format!("cannot wait for `{command}`: {error}")),
            }
        };
        let found = shown(&output)?;
        let may_fail = expected.lines().any(|line| line.starts_with("error:"));
        if !status.success() && !may_fail {
            return Err(format!("`{command}` failed ({status}); its output:\n{found}"));
        }
        if !matches(expected, &found) {
            return Err(format!("`{command}` says something else; expected:\n{expected}\nfound:\n{found}"));
        }
        if let Ok(folder) = fs::read_to_string(&folder) {
            self.current = PathBuf::from(folder.trim_end());
        }
        Ok(())
    }

    /// Starts a server and waits until it answers and has said what is expected.
    fn serve(&mut self, command: &str, expected: &str) -> Result<(), String> {
        let port = port_of(command).ok_or_else(|| format!("`{command}` names no port"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpStream::connect_timeout(&address, POLL).is_ok() {
            return Err(format!("port {port} is in use: end what holds it (`ss -ltnp 'sport = :{port}'`)"));
        }
        let output = self.folder.join(format!("server-{}", self.servers.len()));
        self.servers.push(self.bash(&format!("exec {command}"), &output)?);
        let start = Instant::now();
        loop {
            let found = shown(&output)?;
            if TcpStream::connect_timeout(&address, POLL).is_ok() && matches(expected, &found) {
                return Ok(());
            }
            let ended = self.servers.last_mut().and_then(|server| server.try_wait().ok().flatten());
            if ended.is_some() || start.elapsed() > Duration::from_secs(START_S) {
                let how = if ended.is_some() { "ended" } else { "does not answer as expected" };
                return Err(format!("`{command}` {how}; expected:\n{expected}\nfound:\n{found}"));
            }
            thread::sleep(POLL);
        }
    }
}

/// The port that a command's `--port` names, or the default one.
fn port_of(command: &str) -> Option<u16> {
    let mut words = command.split_whitespace();
    while let Some(word) = words.next() {
        if word == "--port" {
            return words.next()?.parse().ok();
        }
        if let Some(port) = word.strip_prefix("--port=") {
            return port.parse().ok();
        }
    }
    Some(PORT_DEFAULT)
}

/// A command's output, without what only a terminal would hide.
fn shown(output: &Path) -> Result<String, String> {
    let bytes = fs::read(output).map_err(|error| format!("cannot read {}: {error}", output.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether the output is as expected. `…` stands for anything. Digests, numbers with a fraction (times, losses)
/// and the width of spaces may differ: they do from machine to machine. Blank lines at both ends do not count,
/// and no expectation is met by all.
fn matches(expected: &str, found: &str) -> bool {
    let trimmed = |text: &str| {
        let lines: Vec<String> = text.lines().map(by_form).collect();
        lines.join("\n").trim_matches('\n').to_string()
    };
    let (expected, found) = (trimmed(expected), trimmed(found));
    if expected.is_empty() {
        return true;
    }
    // A line with nothing but `…` may stand for no line at all.
    let expected = format!("\n{expected}\n").replace("\n…\n", "\n…");
    let found = format!("\n{found}\n");
    let parts: Vec<&str> = expected.split('…').collect();
    let [first, middle @ .., last] = parts.as_slice() else { return expected == found };
    let Some(mut rest) = found.strip_prefix(first) else { return false };
    for part in middle {
        let Some(place) = rest.find(part) else { return false };
        rest = &rest[place + part.len()..];
    }
    rest.ends_with(last)
}

/// A line with `#` for each digest and each number with a fraction, and one space for several.
fn by_form(line: &str) -> String {
    let mut form = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let hex = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
        let whole = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let fraction = rest[whole..]
            .strip_prefix('.')
            .map_or(0, |after| after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len()));
        let (taken, shown) = if hex >= DIGEST_DIGITS {
            (hex, "#")
        } else if whole > 0 && fraction > 0 {
            (whole + 1 + fraction, "#")
        } else if first == ' ' {
            (rest.find(|c| c != ' ').unwrap_or(rest.len()), " ")
        } else {
            // To the end of the word or number, so that no digest is looked for inside.
            let word = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
            let taken = word.max(first.len_utf8());
            (taken, &rest[..taken])
        };
        form += shown;
        rest = &rest[taken..];
    }
    form.trim_end().to_string()
}

/// Links to files that are not there: line and target. Other sites and places within a page are not looked at.
fn broken_links(page: &Path, text: &str) -> Vec<(usize, String)> {
    let folder = page.parent().unwrap_or(Path::new(""));
    let mut broken = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        fenced ^= line.starts_with("```");
        if fenced {
            continue;
        }
        for part in line.split("](").skip(1) {
            let target = part.split(')').next().unwrap_or_default();
            let file = target.split('#').next().unwrap_or_default();
            if !target.contains("://") && !file.is_empty() && !folder.join(file).exists() {
                broken.push((number + 1, target.to_string()));
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_compared_loosely() {
        for (expected, found, same) in [
            ("", "anything", true),
            ("a", "a\n", true),
            ("a", "b", false),
            ("a  \nb", "a\nb\n\n", true),
            ("a…c", "abc", true),
            ("a…c", "ab", false),
            ("a …\nd", "a b\nc\nd", true),
            ("a\n…\nd", "a\nb\nc\nd", true),
            ("a\n…\nd", "a\nd", true),
            ("a\n…", "a", true),
            ("…\nd", "a\nd", true),
            ("…b…d", "d b", false),
            ("b", "a\nb", false),
            ("base  0.9 s  d1e75d2d0476", "base  10.25 s     3d6a63355dc8", true),
            ("8 documents", "9 documents", false),
            ("v12 c0ffee", "v12 c0fffe", false),
            ("in 1 s", "in 1.5 s", false),
            ("cmpl-ce09f90c106842a4…,1795505472", "cmpl-0009f90c106842a4 x,1795505999", true),
        ] {
            assert_eq!(matches(expected, found), same, "{expected:?} and {found:?}");
        }
    }

    #[test]
    fn pages_become_actions() {
        let page = "Text\n```console\n$ one\nout\n\n$ two \\\n>   more\n```\n\n```toml,file=a/b.toml\nx = 1\n```\n\
                    ```text\n$ not run\n```\n```console,ignore\n$ not run\n```\n";
        let run = |line, command: &str, expected: &str| Action {
            line,
            what: What::Run { command: command.into(), expected: expected.into() },
        };
        let write = What::Write { path: "a/b.toml".into(), text: "x = 1\n".into(), append: false };
        let expected = [run(3, "one", "out\n\n"), run(6, "two \\\n  more", ""), Action { line: 11, what: write }];
        assert_eq!(actions(page).unwrap(), expected);
        for (page, line) in [
            ("```console\nno command\n```\n", 2),
            ("```console\n$ a\n", 1),
            ("\n```console,twice\n$ a\n```\n", 2),
            ("```toml,file=../x\n```\n", 1),
        ] {
            assert_eq!(actions(page).unwrap_err().0, line, "{page}");
        }
    }

    #[test]
    fn ports_of_servers() {
        for (command, port) in [
            ("serve a", Some(8000)),
            ("serve a --port 81", Some(81)),
            ("serve --port=9", Some(9)),
            ("x --port y", None),
        ] {
            assert_eq!(port_of(command), port, "{command}");
        }
    }

    #[test]
    fn links_of_the_book_lead_somewhere() {
        let sources = crate::tidy::root().join("docs/src");
        for page in pages(&sources).unwrap() {
            let text = fs::read_to_string(&page).unwrap();
            assert_eq!(broken_links(&page, &text), [], "{}", page.display());
            assert!(actions(&text).is_ok(), "{}: {:?}", page.display(), actions(&text));
        }
        let index = fs::read_to_string(sources.join("SUMMARY.md")).unwrap();
        let listed = |page: &PathBuf| index.contains(&format!("({})", page.strip_prefix(&sources).unwrap().display()));
        let missing: Vec<PathBuf> = pages(&sources)
            .unwrap()
            .into_iter()
            .filter(|page| !page.ends_with("SUMMARY.md") && !listed(page))
            .collect();
        assert_eq!(missing, [] as [PathBuf; 0], "not in SUMMARY.md");
        assert_eq!(
            broken_links(Path::new("/x/page.md"), "[a](b.md) [c](https://d) [e](#f)"),
            [(1, "b.md".to_string())]
        );
    }
}
