//! Several processes of one machine that train together: the same bytes as one, and what is said when one is lost.
#![cfg(target_os = "linux")]

use crate::program::{digest, fail, narthex, succeed, sums, until_checkpoint};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Pretraining, tuning of adapters with dropout, preferences and a classifier, with micro-batches for several ranks.
const PROJECT: &str = r#"[project]
name = "several"
seed = 5

[sources.lines]
path = "lines.txt"
rows = "line"
license = "CC0-1.0"

[steps.documents]
kind = "data"
from = "lines"
validation = 0.2

[steps.tokens]
kind = "tokenize"
from = "documents"
vocab_size = 280

[steps.base]
kind = "train"
data = "tokens"
model = { hidden_size = 32, intermediate_size = 48, layers = 2, heads = 2, kv_heads = 1 }

[steps.base.schedule]
steps = 20
batch_size = 2
gradient_accumulation = 4
context = 32
lr = 1e-2
warmup = 5
dropout = 0.1
eval_every = 10
checkpoint_every = 5
keep_checkpoints = true
activation_checkpointing = true
optimizer = "muon"

[steps.talks]
kind = "data"
from = "lines"
output = "chat"
transform = "select text as user, lead(text) over (order by row) as assistant from source"

[steps.talk-tokens]
kind = "tokenize"
from = "talks"
tokenizer = "tokens"

[steps.talker]
kind = "tune"
model = "base"
data = "talk-tokens"
lora = { rank = 2, dropout = 0.1, use_dora = true }
schedule = { steps = 6, batch_size = 1, gradient_accumulation = 3, gradient_sums = 2, context = 32, lr = 1e-2, warmup = 2, precision = "bf16" }

[steps.pairs]
kind = "data"
from = "lines"
output = "pairs"
transform = "select text as prompt, 'yes' as chosen, 'no' as rejected from source"

[steps.pair-tokens]
kind = "tokenize"
from = "pairs"
tokenizer = "tokens"

[steps.preferring]
kind = "tune"
objective = "dpo"
model = "talker"
data = "pair-tokens"
schedule = { steps = 4, batch_size = 2, gradient_accumulation = 2, context = 32, lr = 1e-3, warmup = 1, precision = "bf16" }

[steps.rows]
kind = "data"
from = "lines"
output = "rows"
transform = "select text, case when text like '1%' then 'one' else 'other' end as label from source"

[steps.judge]
kind = "fit"
model = "base"
data = "rows"
target = "label"
schedule = { steps = 4, batch_size = 2, gradient_accumulation = 3, context = 32, lr = 1e-3, warmup = 1 }
"#;

const TRAINED: [&str; 4] = ["base", "talker", "preferring", "judge"];

fn project(folder: &Path) -> PathBuf {
    sums(folder);
    fs::write(folder.join("narthex.toml"), PROJECT).unwrap();
    folder.to_path_buf()
}

#[test]
fn the_number_of_processes_changes_no_byte() {
    let home = tempfile::tempdir().unwrap();
    let alone = project(&home.path().join("alone"));
    succeed(&alone, &["run"]);
    let expected = TRAINED.map(|step| digest(&alone, step));
    for ranks in ["2", "3", "4"] {
        let folder = project(&home.path().join(ranks));
        // Also where each has its share alone, of the moments or of the weights too.
        let shard = match ranks {
            "2" => "parameters",
            "3" => "none",
            _ => "optimizer",
        };
        let set = TRAINED.map(|step| format!("{step}.shard={shard}"));
        let set = set.iter().flat_map(|set| ["--set", set]).collect::<Vec<_>>();
        succeed(&folder, &[&["run", "--ranks", ranks][..], &set].concat());
        assert_eq!(TRAINED.map(|step| digest(&folder, step)), expected, "{ranks} processes");
        let run =
            fs::read_to_string(folder.join(".narthex/artifacts").join(&expected[0]).join("run/run.json")).unwrap();
        assert!(
            run.contains(&format!("\"ranks\":{ranks}.0")) || run.contains(&format!("\"ranks\": {ranks}.0")),
            "{run}"
        );
        // Nothing is trained again by one process: how many there were is no part of what is known.
        assert!(succeed(&folder, &["run"]).matches("unchanged").count() >= 7);
    }
    // One process checks what four have trained.
    succeed(&home.path().join("4"), &["reproduce", "base"]);
    succeed(&home.path().join("4"), &["verify", "base"]);
}

/// The process that is this rank of a run that was started here.
fn rank(launcher: &Child, rank: usize) -> Option<u32> {
    let id = launcher.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    let wanted = format!("NARTHEX_RANK={rank}");
    children.split_whitespace().filter_map(|child| child.parse().ok()).find(|child: &u32| {
        let environment = fs::read(format!("/proc/{child}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
    })
}

/// Starts a long training over two processes, and waits for its first checkpoint.
fn started(folder: &Path, more: &[&str]) -> Child {
    let args = ["run", "--to", "base", "--ranks", "2", "--set", "base.steps=300", "--set", "base.shard=optimizer"];
    let args = [&args, more].concat();
    let child = narthex(folder, &args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    until_checkpoint(child, folder, 5)
}

fn signal(process: u32, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &process.to_string()]).status().unwrap().success());
}

#[test]
fn a_lost_process_is_named_and_the_run_goes_on_to_the_same_bytes() {
    let home = tempfile::tempdir().unwrap();
    let whole = project(&home.path().join("whole"));
    succeed(&whole, &["run", "--to", "base", "--set", "base.steps=300"]);
    let expected = digest(&whole, "base");
    for (lost, more) in [(1, &[][..]), (0, &[]), (1, &["--restarts", "1"])] {
        let folder = project(&home.path().join(format!("{lost}{}", more.len())));
        let child = started(&folder, more);
        signal(rank(&child, lost).unwrap(), "KILL");
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        if more.is_empty() {
            assert_eq!(ended.status.code(), Some(1), "{said}");
            assert!(said.contains(&format!("rank {lost} was ended by signal 9")), "{said}");
            succeed(&folder, &["run", "--to", "base", "--set", "base.steps=300"]);
        } else {
            assert!(ended.status.success(), "{said}");
            assert!(said.contains("rank 1 was killed; starting all again"), "{said}");
        }
        assert_eq!(digest(&folder, "base"), expected);
    }
    // An interrupt saves, as in one process; three go on where two were.
    let folder = project(&home.path().join("interrupted"));
    let child = started(&folder, &[]);
    signal(child.id(), "INT");
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", String::from_utf8_lossy(&ended.stderr));
    succeed(&folder, &["run", "--to", "base", "--ranks", "3", "--set", "base.steps=300"]);
    assert_eq!(digest(&folder, "base"), expected);
}

/// Processes that somebody else has started find each other at an address.
#[test]
fn ranks_of_other_launchers_meet_over_tcp() {
    let home = tempfile::tempdir().unwrap();
    let whole = project(&home.path().join("whole"));
    succeed(&whole, &["run", "--to", "base"]);
    let folder = project(&home.path().join("tcp"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let start = |rank: usize, plan: &[&str]| {
        narthex(&folder, &[&["run", "--to", "base", "--set", "base.shard=parameters"], plan].concat())
            .envs([("RANK", rank.to_string().as_str()), ("WORLD_SIZE", "3")])
            .envs([("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", port.as_str())])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let ended = |ranks: Vec<Child>| -> Vec<(Option<i32>, String)> {
        let outputs = ranks.into_iter().map(|rank| rank.wait_with_output().unwrap());
        outputs.map(|output| (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())).collect()
    };
    // One has another plan.
    let other =
        ended((0..3).map(|rank| start(rank, if rank == 1 { &["--set", "base.lr=0.5"] } else { &[] })).collect());
    assert!(other.iter().all(|(code, _)| *code == Some(1)), "{other:?}");
    assert!(other[0].1.contains("rank 1 has another plan than rank 0"), "{other:?}");
    let same = ended((0..3).map(|rank| start(rank, &[])).collect());
    assert!(same.iter().all(|(code, _)| *code == Some(0)), "{same:?}");
    assert!(same[0].1.contains("3 ranks over TCP: 0 on "), "{same:?}");
    assert_eq!(digest(&folder, "base"), digest(&whole, "base"));
    let stderr = fail(&folder, &["run", "--engine", "mpi"], 2);
    assert!(stderr.contains("one process has been started"), "{stderr}");
}

/// Wherever a process is killed, what it has promised holds.
#[test]
fn a_process_may_be_killed_anywhere() {
    let home = tempfile::tempdir().unwrap();
    let whole = project(&home.path().join("whole"));
    succeed(&whole, &["run", "--to", "base"]);
    let expected = digest(&whole, "base");
    for (rank, place, step) in [
        (1, "forward", 6),
        (0, "backward", 7),
        (1, "reduce", 8),
        (0, "optimizer", 9),
        (1, "weights", 10),
        (0, "moments", 10),
        (0, "rename", 15),
        (0, "renamed", 15),
    ] {
        let folder = project(&home.path().join(place));
        let marker = folder.join("killed");
        let args = ["run", "--to", "base", "--ranks", "2", "--restarts", "1", "--set", "base.shard=parameters"];
        let output = narthex(&folder, &args)
            .env("NARTHEX_FAULT", format!("{rank}:{place}:{step}:{}", marker.display()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && marker.is_file(), "{place}: {said}");
        assert!(said.contains(&format!("rank {rank} was killed")), "{place}: {said}");
        assert_eq!(digest(&folder, "base"), expected, "{place}");
    }
}

/// The same command, in which writing beyond a limit is an error as on a full disk, and no signal.
fn with_errors_of_writing(command: Command) -> Command {
    let mut sh = Command::new("sh");
    sh.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => sh.env(name, value),
            None => sh.env_remove(name),
        };
    }
    sh.current_dir(command.get_current_dir().unwrap());
    sh
}

/// One process whose disk is full, one that does not go on, and a checkpoint that is cut short: each is named, and the
/// same command goes on to the same bytes.
#[test]
fn no_room_no_answer_and_half_a_checkpoint_lose_nothing() {
    let home = tempfile::tempdir().unwrap();
    let whole = project(&home.path().join("whole"));
    let train = ["run", "--to", "base", "--set", "base.steps=300"];
    succeed(&whole, &train);
    let expected = digest(&whole, "base");
    let ranks = [&train[..], &["--ranks", "2", "--set", "base.shard=parameters"]].concat();
    let start = |folder: &Path| {
        let command = with_errors_of_writing(narthex(folder, &ranks));
        let mut command = command;
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        until_checkpoint(child, folder, 10)
    };
    let ended = |child: Child| {
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        said
    };

    let folder = project(&home.path().join("full"));
    let child = start(&folder);
    let limit = rustix::process::Rlimit { current: Some(4096), maximum: Some(4096) };
    let process = rustix::process::Pid::from_raw(rank(&child, 1).unwrap() as i32);
    rustix::process::prlimit(process, rustix::process::Resource::Fsize, limit).unwrap();
    let said = ended(child);
    assert!(said.contains("rank 1") && said.contains("File too large"), "{said}");
    // What was whole is not lost; of what is, the newest is cut short.
    let checkpoints = || {
        let work = fs::read_dir(folder.join(".narthex/work")).unwrap().flatten();
        let found = work.flat_map(|step| fs::read_dir(step.path())).flatten().flatten();
        let found = found.filter_map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            Some((name.strip_prefix("checkpoint-")?.parse::<u64>().ok()?, entry.path()))
        });
        let mut found: Vec<_> = found.collect();
        found.sort();
        found
    };
    let (step, newest) = checkpoints().pop().unwrap();
    let weights = fs::OpenOptions::new().write(true).open(newest.join("weights.safetensors")).unwrap();
    weights.set_len(weights.metadata().unwrap().len() / 2).unwrap();
    let output = narthex(&folder, &ranks).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains(&format!("the checkpoint of step {step} is damaged")), "{said}");
    assert_eq!(digest(&folder, "base"), expected);

    let folder = project(&home.path().join("stopped"));
    let child = start(&folder);
    let stopped = rank(&child, 1).unwrap();
    signal(stopped, "STOP");
    let said = ended(child);
    assert!(said.contains("rank 1 does not answer") && said.contains("its process has stopped"), "{said}");
    assert!(!Path::new(&format!("/proc/{stopped}")).exists(), "the stopped process is still there");
    succeed(&folder, &ranks);
    assert_eq!(digest(&folder, "base"), expected);
}

/// What training takes is said before it runs.
#[test]
fn memory_is_planned() {
    let home = tempfile::tempdir().unwrap();
    let folder = project(&home.path().join("p"));
    let shown = succeed(&folder, &["plan", "memory", "base", "--ranks", "2"]);
    assert!(shown.contains("shard = \"parameters\"") && shown.contains("fastest that fits"), "{shown}");
    let plan: serde_json::Value =
        serde_json::from_str(&succeed(&folder, &["plan", "memory", "base", "--json"])).unwrap();
    let chosen: Vec<_> = plan["settings"].as_array().unwrap().iter().filter(|way| way["is_chosen"] == true).collect();
    assert_eq!(chosen.len(), 1);
    let number = |key: &str| chosen[0][key].as_u64().unwrap();
    // Muon keeps one moment of the blocks' matrices.
    assert!(number("moments_bytes") < 2 * number("weights_bytes") && number("disk_bytes") == 0, "{plan}");
    let stderr = fail(&folder, &["plan", "memory", "documents"], 1);
    assert!(stderr.contains("not known before it runs"), "{stderr}");
}

/// What cannot be trained is said once, by the first process.
#[test]
fn mistakes_are_said_as_by_one_process() {
    let home = tempfile::tempdir().unwrap();
    let folder = project(&home.path().join("p"));
    let stderr = fail(&folder, &["run", "--ranks", "2", "--set", "base.heads=5"], 1);
    assert_eq!(stderr.matches("error:").count(), 1, "{stderr}");
    assert!(stderr.contains("`heads` = 5"), "{stderr}");
    let stderr = fail(&folder, &["run", "--ranks", "0"], 2);
    assert!(stderr.contains("--ranks"), "{stderr}");
}
