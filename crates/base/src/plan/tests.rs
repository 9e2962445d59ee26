//! Plans: order, origins, and what mistakes look like.

use super::*;

const GOOD: &str = r#"[project]
name = "t"
seed = 7

[sources.books]
path = "books/*.txt"
license = "CC0-1.0"

[steps.plays]
kind = "data"
from = "books"
validation = 0.1

[steps.chat]
kind = "tune"
model = "base"
data = "tokens"

[steps.tokens]
kind = "tokenize"
from = "plays"
vocab_size = 512

[steps.base]
kind = "train"
data = "tokens"
model = { heads = 2, kv_heads = 1, hidden_size = 64 }

[steps.base.schedule]
steps = 10
lr = 1e-3
warmup = 2
"#;

fn layers(file: &str, flags: &[&str]) -> Layers {
    Layers {
        file_name: "narthex.toml".into(),
        file: file.into(),
        flags: flags.iter().map(|f| f.to_string()).collect(),
        ..Layers::default()
    }
}

fn resolve(file: &str, flags: &[&str]) -> Result<Plan> {
    Plan::resolve(&layers(file, flags))
}

#[test]
fn steps_come_after_their_inputs() {
    let plan = resolve(GOOD, &[]).unwrap();
    let names: Vec<_> = plan.steps.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["plays", "tokens", "base", "chat"]);
    let to: Vec<_> = plan.steps_to("tokens").unwrap().iter().map(|s| s.name.clone()).collect();
    assert_eq!(to, ["plays", "tokens"]);
    assert_eq!(plan.project.license.as_str(), "LicenseRef-OpenMDW-1.1");
}

#[test]
fn every_value_knows_its_origin() {
    let mut layers = layers(GOOD, &["base.lr=3e-4", "project.name=other"]);
    layers.environment = vec!["train.steps=20".into()];
    layers.user_file = Some(("user.toml".into(), "[defaults.train.schedule]\nbatch_size = 3\nsteps = 99\n".into()));
    let plan = Plan::resolve(&layers).unwrap();
    let get = |path: &str| {
        let (_, value, origin) = plan.values().into_iter().find(|(p, ..)| p == path).unwrap();
        (value.to_string(), origin.to_string())
    };
    for (path, value, origin) in [
        ("steps.base.schedule.lr", "0.0003", "flag --set"),
        ("steps.base.schedule.steps", "20", "environment"),
        ("steps.base.schedule.warmup", "2", "narthex.toml:32"),
        ("steps.base.schedule.batch_size", "3", "user.toml:2"),
        ("steps.base.schedule.beta1", "0.9", "default"),
        ("steps.base.model.heads", "2", "narthex.toml:27"),
        ("project.name", "\"other\"", "flag --set"),
        ("sources.books.license", "\"CC0-1.0\"", "narthex.toml:7"),
    ] {
        assert_eq!(get(path), (value.to_string(), origin.to_string()), "{path}");
    }
}

#[test]
fn mistakes_name_the_line_and_the_fix() {
    let with = |from: &str, to: &str| {
        assert!(GOOD.contains(from), "the edit applies: {from}");
        GOOD.replacen(from, to, 1)
    };
    let cases: Vec<(String, &[&str], &str, &str, &str)> = vec![
        (with("seed = 7", "sed = 7"), &[], "unknown key `sed`", "narthex.toml:3", "did you mean `seed`"),
        (
            with("kind = \"data\"", "kind = \"dat\""),
            &[],
            "unknown kind `dat`",
            "narthex.toml:10",
            "did you mean `data`",
        ),
        (with("kind = \"data\"\n", ""), &[], "no `kind`", "narthex.toml:9", "one of: data"),
        (
            with("from = \"books\"", "from = \"boks\""),
            &[],
            "no such step or source",
            "narthex.toml:11",
            "did you mean `books`",
        ),
        (with("validation = 0.1", "validation = 0.9"), &[], "outside 0 to 0.5", "narthex.toml:12", "0.1 keeps"),
        (with("validation = 0.1", "validation = \"x\""), &[], "`validation` must be a number", "narthex.toml:12", ""),
        (
            with("data = \"tokens\"\nmodel = {", "data = \"plays\"\nmodel = {"),
            &[],
            "must be a tokenize step",
            "narthex.toml:26",
            "tokenize",
        ),
        (with("heads = 2", "heads = 3"), &[], "does not divide", "narthex.toml:27", "divisor"),
        (
            with("license = \"CC0-1.0\"", "license = \"CC0\""),
            &[],
            "not an SPDX",
            "narthex.toml:7",
            "did you mean `CC0-1.0`",
        ),
        (with("name = \"t\"", "name = "), &[], "not valid TOML", "narthex.toml:2", "toml.io"),
        (with("[project]", "[projct]"), &[], "unknown table `projct`", "narthex.toml:1", "did you mean `project`"),
        (
            with("vocab_size = 512", ""),
            &[],
            "either `vocab_size` or `tokenizer`",
            "narthex.toml:19",
            "trains a tokenizer",
        ),
        (GOOD.into(), &["base.lr=fast"], "`lr` must be a number, not a string", "--set", "1e-3"),
        (GOOD.into(), &["base.lrr=1"], "unknown key `lrr`", "--set", "did you mean `lr` in `schedule`"),
        (GOOD.into(), &["base.warmup=11"], "`warmup` = 11 is more than `steps` = 10", "--set", "a tenth"),
        (GOOD.into(), &["bas.lr=1"], "starts with neither", "", "did you mean `base`"),
        (GOOD.into(), &["chat.dropout=0.1"], "chat.lora.dropout or chat.schedule.dropout", "", "in full"),
        (GOOD.into(), &["base.dropout=2"], "outside 0 to 1", "--set", "0 turns it off"),
        (GOOD.into(), &["base.lr"], "not an assignment", "", "--set"),
        (GOOD.into(), &["base.learning_rate=1"], "unknown key `learning_rate`", "--set", "keys here"),
    ];
    for (file, flags, what, place, help) in cases {
        let error = resolve(&file, flags).expect_err(what);
        let shown = error.to_string();
        assert!(error.what().contains(what), "wanted `{what}` in:\n{shown}");
        assert!(error.place().unwrap_or_default().starts_with(place), "wanted `{place}` in:\n{shown}");
        assert!(error.help_text().unwrap_or_default().contains(help), "wanted `{help}` in:\n{shown}");
    }
}

#[test]
fn cycles_are_shown() {
    let file =
        "[project]\nname = \"t\"\n[steps.a]\nkind = \"data\"\nfrom = \"b\"\n[steps.b]\nkind = \"data\"\nfrom = \"a\"\n";
    let error = resolve(file, &[]).unwrap_err();
    assert_eq!(error.what(), "the steps form a cycle: `a` needs `b` needs `a`");
    assert_eq!(error.place().unwrap(), "narthex.toml:3");
}

#[test]
fn a_kind_with_several_steps_must_be_named() {
    let file = format!("{GOOD}\n[steps.base2]\nkind = \"train\"\ndata = \"tokens\"\n");
    let error = resolve(&file, &["train.lr=1e-4"]).unwrap_err();
    assert!(error.to_string().contains("base, base2"), "{error}");
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn schema_names_every_kind() {
    let schema = Plan::schema().to_string();
    for kind in Step::kind_names() {
        assert!(schema.contains(&format!("\"{kind}\"")), "{kind}");
    }
}
