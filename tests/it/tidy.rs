//! Invariants that a machine can hold: who may name whom, who may read the clock, who may spawn, where SQL is.
//!
//! Each check is a function from sources to findings, with a bad sample below that it must find.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Who may name whom with `crate::`. Every module may name itself; the root's re-exports count as the module that they
/// come from. A new module needs a row.
const MODULES: &[Module] = &[
    Module { name: "atomic", may_name: &[], may_use_tokio: false },
    Module { name: "error", may_name: &[], may_use_tokio: false },
    Module { name: "text", may_name: &["error"], may_use_tokio: false },
    Module { name: "tenant", may_name: &["error", "text"], may_use_tokio: false },
    Module { name: "time", may_name: &["error", "text"], may_use_tokio: true },
    Module { name: "page", may_name: &["error", "tenant", "text", "time"], may_use_tokio: false },
    Module { name: USAGE_DATA, may_name: &["error", "page", "tenant", "text", "time"], may_use_tokio: false },
    Module {
        name: COST_DATA,
        may_name: &["error", "tenant", "text", "time", USAGE_DATA],
        may_use_tokio: false,
    },
    Module {
        name: COST_ENGINE,
        may_name: &["error", "page", "store", "tenant", "text", "time", COST_DATA, USAGE_DATA],
        may_use_tokio: true,
    },
    Module {
        name: QUOTA_DATA,
        may_name: &["error", "tenant", "text", "time", USAGE_DATA],
        may_use_tokio: false,
    },
    Module {
        name: QUOTA_ENGINE,
        may_name: &[
            "atomic", "error", "store", "tenant", "text", "time", "upkeep", COST_DATA, QUOTA_DATA, USAGE_DATA,
        ],
        may_use_tokio: true,
    },
    Module {
        name: USAGE_ENGINE,
        may_name: &[
            "error",
            "page",
            "store",
            "tenant",
            "text",
            "time",
            "upkeep",
            COST_DATA,
            QUOTA_DATA,
            QUOTA_ENGINE,
            USAGE_DATA,
        ],
        may_use_tokio: true,
    },
    Module {
        name: AUDIT_DATA,
        may_name: &["error", "page", "tenant", "text", "time", USAGE_DATA],
        may_use_tokio: false,
    },
    Module {
        name: AUDIT_ENGINE,
        may_name: &["error", "page", "store", "tenant", "text", "time", "upkeep", AUDIT_DATA, USAGE_DATA],
        may_use_tokio: true,
    },
    Module {
        name: ALERT_DATA,
        may_name: &["error", "page", "tenant", "text", "time", QUOTA_DATA, USAGE_DATA],
        may_use_tokio: false,
    },
    Module {
        name: ALERT_ENGINE,
        may_name: &[
            "error",
            "page",
            "store",
            "tenant",
            "text",
            "time",
            "upkeep",
            ALERT_DATA,
            AUDIT_DATA,
            AUDIT_ENGINE,
            QUOTA_DATA,
            USAGE_DATA,
            USAGE_ENGINE,
        ],
        may_use_tokio: true,
    },
    Module {
        name: "store",
        may_name: &[
            "error", "page", "tenant", "text", "time", ALERT_DATA, AUDIT_DATA, COST_DATA, QUOTA_DATA,
            USAGE_DATA,
        ],
        may_use_tokio: true,
    },
    Module {
        name: "upkeep",
        may_name: &[
            "error",
            "page",
            "store",
            "tenant",
            "text",
            "time",
            AUDIT_DATA,
            AUDIT_ENGINE,
            QUOTA_ENGINE,
            USAGE_DATA,
            USAGE_ENGINE,
        ],
        may_use_tokio: true,
    },
    Module {
        name: "audited",
        may_name: &[
            "error",
            "page",
            "store",
            "tenant",
            "text",
            "time",
            AUDIT_DATA,
            AUDIT_ENGINE,
            QUOTA_DATA,
            QUOTA_ENGINE,
            USAGE_DATA,
            USAGE_ENGINE,
        ],
        may_use_tokio: true,
    },
    Module {
        name: "archive",
        may_name: &["error", "page", "store", "tenant", "text", "time", "upkeep", USAGE_DATA],
        may_use_tokio: false,
    },
    Module { name: "testing", may_name: &["*"], may_use_tokio: true },
    Module { name: "lib", may_name: &["*"], may_use_tokio: true },
];
/// The files of `src/usage` that are plain data; every other one there is the engine.
const USAGE_DATA_FILES: &[&str] =
    &["amount", "drift", "event", "flush", "id", "metadata", "query", "rollup", "sketch", "tokens"];
/// Likewise of `src/quota`.
const QUOTA_DATA_FILES: &[&str] = &["kind", "limit", "plan", "reconcile", "slice", "window"];
/// The files of `src/audit` that move; every other one there is plain data.
const AUDIT_ENGINE_FILES: &[&str] =
    &["ack", "anchor", "archive", "builder", "health", "log", "queue", "sealer", "vault", "verify", "writer"];
/// The files of `src/alert` that are plain data; every other one there is the engine.
const ALERT_DATA_FILES: &[&str] =
    &["change", "check", "incident", "notification", "observation", "report", "silence"];
const ALERT_DATA: &str = "alert (plain data)";
const ALERT_ENGINE: &str = "alert (engine)";
const AUDIT_DATA: &str = "audit (plain data)";
const AUDIT_ENGINE: &str = "audit (engine)";
const COST_DATA: &str = "cost (plain data)";
const COST_ENGINE: &str = "cost (engine)";
const QUOTA_DATA: &str = "quota (plain data)";
const QUOTA_ENGINE: &str = "quota (engine)";
const USAGE_DATA: &str = "usage (plain data)";
const USAGE_ENGINE: &str = "usage (engine)";

const CLOCKS: &[&str] = &["SystemTime::now", "Instant::now", "Utc::now", "Local::now", "Uuid::now_v7"];
const SPAWNS: &[&str] =
    &[".spawn(", "tokio::spawn", "task::spawn", "thread::spawn", "spawn_blocking(", "spawn_local("];
const LINES_MAX: usize = 500;

struct Module {
    name: &'static str,
    may_name: &'static [&'static str],
    may_use_tokio: bool,
}

/// A file: its path from the root of the crate, with `/`, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn is(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|own| own == extension)
    }
}

#[test]
fn only_time_reads_the_clock() {
    none(&clock_readings(&read(&["src"])));
}

#[test]
fn only_upkeep_spawns() {
    none(&spawns(&read(&["src"])));
}

#[test]
fn modules_import_one_way() {
    none(&imports(&read(&["src"])));
}

#[test]
fn sql_is_in_sql_files() {
    none(&sql_literals(&read(&["src/store"])));
}

#[test]
fn sql_files_have_a_header_and_are_taken_in() {
    none(&sql_files(&read(&["src/store"])));
}

#[test]
fn files_are_short() {
    none(&long_files(&read(&["src"])));
}

#[test]
fn the_mission_names_existing_tests() {
    none(&missing_tests(&read(&["docs/mission.md"]), &read(&["src", "tests"]), &tests_of_this_binary()));
}

#[test]
fn no_path_of_one_machine_is_in_the_sources() {
    none(&machine_paths(&read(&[
        ".ci",
        "CHANGELOG.md",
        "Cargo.toml",
        "README.md",
        "benches",
        "docs",
        "examples",
        "scripts",
        "src",
        "tests",
    ])));
}

#[test]
fn no_dependency_asks_for_a_newer_rust() {
    none(&newer_dependencies(&cargo_metadata(), env!("CARGO_PKG_RUST_VERSION")));
}

/// Library code outside of `src/time` that reads a clock.
fn clock_readings(sources: &[Source]) -> Vec<String> {
    let is_exempt = |path: &str| path.starts_with("src/time") || path.starts_with("src/testing/postgres");
    occurrences(sources, CLOCKS, is_exempt)
}

/// Library code outside of `src/upkeep` that spawns a task or a thread.
fn spawns(sources: &[Source]) -> Vec<String> {
    occurrences(sources, SPAWNS, |path| path.starts_with("src/upkeep") || path.starts_with("src/testing"))
}

fn occurrences(sources: &[Source], words: &[&str], is_exempt: impl Fn(&str) -> bool) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is("rs") && !is_exempt(&source.path)) {
        for (number, line) in (1..).zip(library_code(&source.text).lines()) {
            let found = words.iter().filter(|word| line.contains(**word));
            findings.extend(found.map(|word| format!("{}:{number}: `{word}`", source.path)));
        }
    }
    findings
}

/// Names that a module must not name, by [`MODULES`].
fn imports(sources: &[Source]) -> Vec<String> {
    let files = sources.iter().filter(|source| source.is("rs"));
    let files = files.map(|source| (source, module_path(&source.path), library_code(&source.text)));
    let files = files.collect::<Vec<_>>();
    let roots = files.iter().filter_map(|(_, module, _)| module.first().cloned()).collect::<BTreeSet<_>>();
    let exports = files.iter().flat_map(|(_, module, code)| re_exports(module, code)).collect();

    let mut findings = Vec::new();
    for (source, module, code) in &files {
        let name = module_name(module);
        let Some(row) = MODULES.iter().find(|row| row.name == name) else {
            findings.push(format!("{}: `{name}` has no row in MODULES", source.path));
            continue;
        };
        if !row.may_use_tokio && code.contains("tokio") {
            findings.push(format!("{}: `{name}` must not use tokio", source.path));
        }
        for (number, named) in paths_from_root(module, code) {
            let target = resolved(&named, &exports);
            let place = format!("{}:{number}: `crate::{}`", source.path, named.join("::"));
            if target.first().is_none_or(|root| !roots.contains(root)) {
                findings.push(format!("{place} is no module and no re-export"));
                continue;
            }
            let target = module_name(&target);
            let may_name = target == name || row.may_name.contains(&target.as_str()) || row.may_name == ["*"];
            if !may_name {
                findings.push(format!("{place}: `{name}` must not name `{target}`"));
            }
        }
    }
    findings
}

/// `src/a/b.rs` is `[a, b]`, `src/a/mod.rs` is `[a]`, `src/lib.rs` is `[]`.
fn module_path(path: &str) -> Vec<String> {
    let path = path.strip_prefix("src/").unwrap_or(path).trim_end_matches(".rs");
    let mut segments = path.split('/').map(str::to_owned).collect::<Vec<_>>();
    segments.pop_if(|last| last == "mod" || last == "lib");
    segments
}

fn module_name(path: &[String]) -> String {
    match path {
        [] => "lib".to_owned(),
        [root, file, ..] if root == "usage" && USAGE_DATA_FILES.contains(&file.as_str()) => {
            USAGE_DATA.to_owned()
        }
        [root, ..] if root == "usage" => USAGE_ENGINE.to_owned(),
        [root, file, ..] if root == "quota" && QUOTA_DATA_FILES.contains(&file.as_str()) => {
            QUOTA_DATA.to_owned()
        }
        [root, ..] if root == "quota" => QUOTA_ENGINE.to_owned(),
        [root, file, ..] if root == "alert" && ALERT_DATA_FILES.contains(&file.as_str()) => {
            ALERT_DATA.to_owned()
        }
        [root, ..] if root == "alert" => ALERT_ENGINE.to_owned(),
        [root, file, ..] if root == "audit" && AUDIT_ENGINE_FILES.contains(&file.as_str()) => {
            AUDIT_ENGINE.to_owned()
        }
        [root, file, ..] if root == "cost" && file == "reprice" => COST_ENGINE.to_owned(),
        [root, ..] if root == "cost" => COST_DATA.to_owned(),
        [root, ..] if root == "audit" => AUDIT_DATA.to_owned(),
        [root, ..] => root.clone(),
    }
}

/// What a module re-exports from its own children or from elsewhere in the crate: from path to path.
fn re_exports(module: &[String], code: &str) -> Vec<(Vec<String>, Vec<String>)> {
    let mut exports = Vec::new();
    for (start, _) in code.match_indices("use ") {
        let line = &code[code[..start].rfind('\n').map_or(0, |end| end + 1)..start];
        if !line.trim_start().starts_with("pub") {
            continue;
        }
        let mut leaves = Vec::new();
        use_tree(&mut Tokens(&code[start + 4..]), &[], &mut leaves);
        for (path, name) in leaves {
            let target = match path.first().map(String::as_str) {
                Some("crate") => path[1..].to_vec(),
                Some("self") => [module, &path[1..]].concat(),
                Some("super") => [&module[..module.len() - 1], &path[1..]].concat(),
                Some(first) if code.contains(&format!("mod {first};")) => [module, &path[..]].concat(),
                _ => continue,
            };
            exports.push(([module, &[name]].concat(), target));
        }
    }
    // An exported macro stands at the root, whatever file it is in.
    for (start, export) in code.match_indices("#[macro_export]") {
        let name = code[start + export.len()..]
            .split_once("macro_rules! ")
            .and_then(|(_, rest)| Tokens(rest).word());
        exports.extend(name.map(|name| (vec![name.to_owned()], [module, &[name.to_owned()]].concat())));
    }
    exports
}

fn resolved(path: &[String], exports: &BTreeMap<Vec<String>, Vec<String>>) -> Vec<String> {
    let mut path = path.to_vec();
    // A chain of re-exports is short; a loop of them does not compile.
    for _ in 0..8 {
        let longest = (1..=path.len()).rev().find(|end| exports.contains_key(&path[..*end]));
        let Some(end) = longest else { break };
        path = [&exports[&path[..end]], &path[end..]].concat();
    }
    path
}

/// Every path of the crate that the code names through `crate::` or through as many `super::` as lead to the root.
fn paths_from_root(module: &[String], code: &str) -> Vec<(usize, Vec<String>)> {
    let up = "super::".repeat(module.len());
    let starts = if module.is_empty() { vec!["crate::"] } else { vec!["crate::", up.as_str()] };
    let mut named = Vec::new();
    for (start, word) in starts.into_iter().flat_map(|word| code.match_indices(word)) {
        let before = code[..start].chars().next_back();
        if before.is_some_and(|character| character.is_alphanumeric() || character == '_' || character == ':')
        {
            continue;
        }
        let mut leaves = Vec::new();
        use_tree(&mut Tokens(&code[start + word.len()..]), &[], &mut leaves);
        let number = code[..start].matches('\n').count() + 1;
        named.extend(leaves.into_iter().map(|(path, _)| (number, path)));
    }
    named
}

/// Parses `a::{b, c::D as E, *}`: each leaf's path and the name that it is given.
fn use_tree(tokens: &mut Tokens<'_>, prefix: &[String], leaves: &mut Vec<(Vec<String>, String)>) {
    let mut path = prefix.to_vec();
    loop {
        if tokens.take("{") {
            while !tokens.take("}") && !tokens.0.is_empty() {
                use_tree(tokens, &path, leaves);
                if !tokens.take(",") && !tokens.0.trim_start().starts_with('}') {
                    return;
                }
            }
            return;
        }
        match tokens.word() {
            Some("self") if !path.is_empty() => {}
            Some(word) => path.push(word.to_owned()),
            None => {
                tokens.take("*");
                break;
            }
        }
        if !tokens.take("::") {
            break;
        }
    }
    let name = if tokens.take("as ") { tokens.word().map(str::to_owned) } else { path.last().cloned() };
    leaves.extend(name.map(|name| (path, name)));
}

struct Tokens<'a>(&'a str);

impl<'a> Tokens<'a> {
    fn take(&mut self, token: &str) -> bool {
        let rest = self.0.trim_start().strip_prefix(token);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn word(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start();
        let end = text
            .find(|character: char| !character.is_alphanumeric() && character != '_')
            .unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.0 = if word.is_empty() { self.0 } else { rest };
        Some(word).filter(|word| !word.is_empty())
    }
}

/// String literals of Rust files that are statements. `BEGIN`, `COMMIT`, `SET LOCAL` and the like may stay in Rust.
fn sql_literals(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is("rs")) {
        let literals = lex(&without_tests(&source.text)).1;
        let statements = literals.iter().filter(|(_, literal)| is_statement(literal));
        findings.extend(statements.map(|(number, literal)| format!("{}:{number}: `{literal}`", source.path)));
    }
    findings
}

/// Whether a text begins like SQL. Prose may begin with the same verb, so one in lower case needs a second word of SQL.
fn is_statement(text: &str) -> bool {
    const VERBS: &[(&str, &[&str])] = &[
        ("alter", &["table", "role", "schema", "database", "index", "function"]),
        ("copy", &["from", "to"]),
        ("create", &["table", "schema", "index", "unique", "function", "or", "role", "policy", "database"]),
        ("delete", &["from"]),
        ("drop", &["table", "schema", "index", "function", "role", "database"]),
        ("insert", &["into"]),
        ("lock", &["table"]),
        ("select", &["from"]),
        ("truncate", &["table"]),
        ("update", &["set"]),
        ("with", &["as"]),
    ];
    let words = text.split_whitespace().collect::<Vec<_>>();
    let [verb, rest @ ..] = words.as_slice() else {
        return false;
    };
    let known = VERBS.iter().find(|(known, _)| known.eq_ignore_ascii_case(verb));
    known.is_some_and(|(known, seconds)| {
        let is_sql = |word: &&str| seconds.iter().any(|second| second.eq_ignore_ascii_case(word));
        let is_loud = *verb == known.to_ascii_uppercase();
        !rest.is_empty() && (is_loud || rest.iter().take(3).any(is_sql))
    })
}

/// SQL files that do not begin with a comment, or that no `include_str!` takes in.
fn sql_files(sources: &[Source]) -> Vec<String> {
    let takers = sources.iter().filter(|source| source.is("rs") && source.text.contains("include_str!"));
    let literals =
        takers.flat_map(|source| lex(&source.text).1).map(|(_, literal)| literal).collect::<Vec<_>>();
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is("sql")) {
        if !source.text.starts_with("--") {
            findings.push(format!(
                "{}: must begin with a `--` comment: purpose, parameters, guarantee",
                source.path
            ));
        }
        let folder_and_file = source.path.rsplitn(3, '/').take(2).collect::<Vec<_>>();
        let [file, folder] = folder_and_file[..] else {
            continue;
        };
        let whole = format!("{folder}/{file}");
        // Either the path itself or, for `include_str!(concat!("sql/", $name, ".sql"))`, the bare name.
        let is_taken = |literal: &String| {
            *literal == whole
                || literal.ends_with(&format!("/{whole}"))
                || format!("{literal}.sql") == file
                || literal == file
        };
        if !literals.iter().any(is_taken) {
            findings.push(format!("{}: no `include_str!` takes it in", source.path));
        }
    }
    findings
}

fn long_files(sources: &[Source]) -> Vec<String> {
    let lengths = sources.iter().map(|source| (&source.path, source.text.lines().count()));
    let long = lengths.filter(|(_, lines)| *lines > LINES_MAX);
    long.map(|(path, lines)| format!("{path}: {lines} lines, the most is {LINES_MAX}")).collect()
}

/// Tests that the third column of the mission's table names and that exist neither in the sources nor in `known`.
fn missing_tests(mission: &[Source], sources: &[Source], known: &[String]) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in mission.iter().flat_map(|page| (1..).zip(page.text.lines())) {
        let cells = line.trim().trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>();
        let is_exempt = cells.iter().any(|cell| cell.trim_matches('*').eq_ignore_ascii_case("not yet"));
        let Some(cell) = cells.get(2).filter(|_| line.trim().starts_with('|') && !is_exempt) else {
            continue;
        };
        let names = cell.split('`').skip(1).step_by(2).filter(|name| name.contains("::"));
        let missing = names.filter(|name| !test_exists(name, sources, known));
        findings.extend(missing.map(|name| format!("docs/mission.md:{number}: no test `{name}`")));
    }
    findings
}

/// `it::usage::fresh` is a `fn fresh` in a file or folder `usage` under `tests`, or anywhere in `src`; or, made by a
/// macro, one that this test binary lists as `usage::fresh`.
fn test_exists(name: &str, sources: &[Source], known: &[String]) -> bool {
    let segments = name.split("::").collect::<Vec<_>>();
    let [.., module, function] = segments[..] else {
        return false;
    };
    let is_there = |source: &Source| {
        let path = source.path.trim_end_matches(".rs");
        let is_module = path.starts_with("src/") || path.split('/').any(|segment| segment == module);
        let declares = |(start, _): (usize, &str)| {
            source.text[start..].trim_start_matches("fn ").strip_prefix(function).is_some_and(|rest| {
                !rest.starts_with(|character: char| character.is_alphanumeric() || character == '_')
            })
        };
        is_module && source.is("rs") && source.text.match_indices("fn ").any(declares)
    };
    let own = format!("{}::", env!("CARGO_CRATE_NAME"));
    let is_known = name.strip_prefix(&own).is_some_and(|name| known.iter().any(|known| known == name));
    is_known || sources.iter().any(is_there)
}

fn tests_of_this_binary() -> Vec<String> {
    let output =
        Command::new(std::env::current_exe().unwrap()).args(["--list", "--format=terse"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let list = String::from_utf8(output.stdout).unwrap();
    list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// Paths that only one machine has. The data of some tests come from a folder that a variable names.
fn machine_paths(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        for (number, line) in (1..).zip(source.text.lines()) {
            // Put together, so that this file is no finding.
            for path in [concat!("/wo", "rk/"), concat!("..", "/shared"), concat!("/home", "/")] {
                let is_whole = |(start, _)| {
                    let before: &str = &line[..start];
                    !before.ends_with(|character: char| character.is_alphanumeric() || character == '/')
                };
                if line.match_indices(path).any(is_whole) {
                    findings.push(format!("{}:{number}: `{path}`", source.path));
                }
            }
        }
    }
    findings
}

/// Dependencies of the library, not of its tests, that declare a newer Rust than ours. Some declare none.
fn newer_dependencies(metadata: &serde_json::Value, ours: &str) -> Vec<String> {
    let version =
        |text: &str| text.split('.').map(|part| part.parse::<u32>().unwrap()).take(2).collect::<Vec<_>>();
    let items = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let mut reached = BTreeSet::new();
    let mut waiting = vec![metadata["resolve"]["root"].clone()];
    while let Some(id) = waiting.pop() {
        let nodes = items(&metadata["resolve"]["nodes"]);
        for dependency in nodes.iter().filter(|node| node["id"] == id).flat_map(|node| items(&node["deps"])) {
            let is_normal = items(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev");
            if is_normal && reached.insert(dependency["pkg"].to_string()) {
                waiting.push(dependency["pkg"].clone());
            }
        }
    }
    assert!(!reached.is_empty(), "cargo names no dependencies");
    let packages = items(&metadata["packages"])
        .into_iter()
        .filter(|package| reached.contains(&package["id"].to_string()));
    let newer = packages
        .filter(|package| package["rust_version"].as_str().is_some_and(|rust| version(rust) > version(ours)));
    newer
        .map(|package| {
            format!("{} {} asks for Rust {}", package["name"], package["version"], package["rust_version"])
        })
        .collect()
}

/// For this machine's target and from what is downloaded, since this very build needed it.
fn cargo_metadata() -> serde_json::Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let host = Command::new(&cargo).arg("-vV").output().expect("cargo runs");
    let host = String::from_utf8(host.stdout).unwrap();
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo names its host");
    let output = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args([
            "metadata",
            "--format-version=1",
            "--all-features",
            "--locked",
            "--offline",
            "--filter-platform",
            host,
        ])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn none(findings: &[String]) {
    assert!(findings.is_empty(), "{} found:\n{}", findings.len(), findings.join("\n"));
}

/// The text files under these paths; a path that does not exist has none.
fn read(paths: &[&str]) -> Vec<Source> {
    let mut sources = Vec::new();
    for path in paths {
        read_into(path, &mut sources);
    }
    sources
}

fn read_into(path: &str, sources: &mut Vec<Source>) {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if let Ok(entries) = fs::read_dir(&place) {
        let mut names =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>();
        names.sort();
        for name in names {
            read_into(&format!("{path}/{name}"), sources);
        }
    } else if let Ok(text) = fs::read_to_string(&place) {
        sources.push(Source { path: path.to_owned(), text });
    }
}

/// The code of a file that is not test code, on the same lines: without comments, and with empty string literals.
fn library_code(text: &str) -> String {
    lex(&without_tests(text)).0
}

/// Blanks the items under a `#[cfg(test)]` at the beginning of a line.
fn without_tests(text: &str) -> String {
    let mut code = String::new();
    let mut is_test = false;
    for line in text.lines() {
        let is_attribute = line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test");
        if is_attribute {
            is_test = true;
        }
        let ends = line.starts_with('}')
            || (!is_attribute && line.starts_with(|c: char| c.is_alphabetic()) && line.ends_with(';'));
        if !is_test {
            code.push_str(line);
        }
        code.push('\n');
        is_test &= !ends;
    }
    code
}

/// Rust code without comments and without the contents of its string literals, and these with their lines.
fn lex(text: &str) -> (String, Vec<(usize, String)>) {
    let mut code = String::new();
    let mut literals = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(character) = rest.chars().next() {
        let is_in_word =
            code.ends_with(|c: char| c.is_alphanumeric() || c == '_') && !code.ends_with(['b', 'c']);
        let hashes = rest.strip_prefix('r').map(|raw| raw.len() - raw.trim_start_matches('#').len());
        let raw = hashes.filter(|hashes| !is_in_word && rest[1 + hashes..].starts_with('"'));
        let end = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw {
            let close = format!("\"{}", "#".repeat(hashes));
            let start = hashes + 2;
            let length = rest[start..].find(&close).unwrap_or(rest.len() - start);
            literals.push((line, rest[start..start + length].to_owned()));
            (start + length + close.len()).min(rest.len())
        } else if character == '"' {
            let length = unescaped(&rest[1..], '"');
            literals.push((line, rest[1..=length].to_owned()));
            (length + 2).min(rest.len())
        } else if rest.starts_with("'\\") {
            unescaped(&rest[1..], '\'') + 2
        } else if character == '\'' && rest.chars().nth(2) == Some('\'') {
            rest.char_indices().nth(3).map_or(rest.len(), |(end, _)| end)
        } else {
            code.push(character);
            line += usize::from(character == '\n');
            rest = &rest[character.len_utf8()..];
            continue;
        };
        if character != '/' {
            code.push_str("\"\"");
        }
        let breaks = rest[..end].matches('\n').count();
        code.push_str(&"\n".repeat(breaks));
        line += breaks;
        rest = &rest[end..];
    }
    (code, literals)
}

/// How far it is to a quote that no backslash escapes.
fn unescaped(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    let end = text.find(|character| {
        let ends = character == quote && !is_escaped;
        is_escaped = character == '\\' && !is_escaped;
        ends
    });
    end.unwrap_or(text.len().saturating_sub(1))
}

mod samples {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    fn crate_with(path: &str, text: &str) -> Vec<Source> {
        vec![
            source(
                "src/lib.rs",
                "pub use crate::error::{Error, Result};\npub use crate::usage::{Tracker, UsageEvent as Event};",
            ),
            source("src/error.rs", ""),
            source(
                "src/usage/mod.rs",
                "mod event;\nmod tracker;\npub use self::tracker::Tracker;\npub use event::UsageEvent;",
            ),
            source("src/usage/event.rs", "use crate::Error;"),
            source("src/usage/tracker.rs", "use crate::store::Store;\nuse tokio::sync::mpsc;"),
            source("src/store/mod.rs", "use crate::{Event, Result};"),
            source(path, text),
        ]
    }

    #[test]
    fn a_clock_is_found() {
        let bad = "fn f() {\n    let now = std::time::Instant::now();\n}";
        assert_eq!(
            clock_readings(&[source("src/store/memory.rs", bad)]),
            ["src/store/memory.rs:2: `Instant::now`"]
        );
        let good = [
            source("src/time/clock.rs", bad),
            source(
                "src/a.rs",
                "/// Unlike `Utc::now()`.\n#[cfg(test)]\nmod tests {\n    Instant::now();\n}\n",
            ),
        ];
        assert_eq!(clock_readings(&good), [""; 0]);
        let after = source("src/a.rs", "#[cfg(test)]\nmod tests;\n\nfn f() { Utc::now() }");
        assert_eq!(clock_readings(&[after]).len(), 1);
    }

    #[test]
    fn a_spawn_is_found() {
        assert_eq!(spawns(&[source("src/usage/flusher.rs", "tokio::spawn(work);")]).len(), 1);
        assert_eq!(spawns(&[source("src/usage/flusher.rs", "handle.spawn(work);")]).len(), 1);
        assert_eq!(spawns(&[source("src/upkeep/mod.rs", "tokio::spawn(work);")]), [""; 0]);
    }

    #[test]
    fn an_import_in_the_wrong_direction_is_found() {
        assert_eq!(imports(&crate_with("src/page.rs", "use crate::{Error, Result};")), [""; 0]);
        for (path, bad) in [
            ("src/error.rs", "use crate::usage::event::UsageEvent;"),
            ("src/error.rs", "use super::usage::UsageEvent;"),
            ("src/store/memory.rs", "use crate::{Result, Tracker};"),
            (
                "src/store/memory.rs",
                "use crate::{\n    Result,\n    usage::{event::UsageEvent, tracker::Tracker},\n};",
            ),
            ("src/store/memory.rs", "fn f() -> crate::usage::Tracker {}"),
            ("src/store/postgres/mod.rs", "use super::super::usage::Tracker;"),
            ("src/usage/query.rs", "use crate::store::Store;"),
            ("src/usage/query.rs", "use tokio::sync::Mutex;"),
            ("src/usage/query.rs", "use crate::usage::*;"),
            ("src/usage/query.rs", "use crate::Unheard;"),
            ("src/fresh.rs", "fn f() {}"),
        ] {
            assert_eq!(imports(&crate_with(path, bad)).len(), 1, "{path}: {bad}");
        }
    }

    #[test]
    fn sql_in_rust_is_found() {
        for bad in [
            "f(\"SELECT 1\")",
            "f(r#\"\n  insert into t values ($1)\"#)",
            "f(\"with x as (values (1)) table x\")",
            "f('\"', \"update t set a = 1\")",
            "f(\"\\\"\", \"DELETE FROM t\")",
        ] {
            assert_eq!(sql_literals(&[source("src/store/a.rs", bad)]).len(), 1, "{bad}");
        }
        for good in [
            "f(\"BEGIN\")",
            "f(\"SET LOCAL x = 1\")",
            "f(\"update of the schema failed\")",
            "// \"SELECT 1\"",
            "f(\"SELECT\")",
        ] {
            assert_eq!(sql_literals(&[source("src/store/a.rs", good)]), [""; 0], "{good}");
        }
    }

    #[test]
    fn a_bare_or_forgotten_sql_file_is_found() {
        let taker = || source("src/store/postgres/sql.rs", "include_str!(\"sql/append.sql\")");
        let file = |path: &str, text: &str| source(&format!("src/store/postgres/{path}"), text);
        assert_eq!(sql_files(&[taker(), file("sql/append.sql", "-- Appends.\nSELECT 1")]), [""; 0]);
        assert_eq!(sql_files(&[taker(), file("sql/append.sql", "SELECT 1")]).len(), 1);
        assert_eq!(sql_files(&[taker(), file("sql/end.sql", "-- Forgotten.")]).len(), 1);
        assert_eq!(sql_files(&[taker(), file("migrations/append.sql", "-- Forgotten.")]).len(), 1);
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(
            long_files(&[source("src/a.rs", &"\n".repeat(501))]),
            ["src/a.rs: 501 lines, the most is 500"]
        );
        assert_eq!(long_files(&[source("src/a.rs", &"\n".repeat(500))]), [""; 0]);
    }

    #[test]
    fn a_missing_test_is_found() {
        let mission = |row: &str| {
            [source("docs/mission.md", &format!("| a | b | tests | status |\n|---|---|---|---|\n{row}"))]
        };
        let tests =
            [source("tests/it/usage.rs", "async fn fresh() {}"), source("tests/replay.rs", "fn totals() {}")];
        let known = ["store::memory::idempotent".to_owned()];
        let missing = |row: &str| missing_tests(&mission(row), &tests, &known);
        assert_eq!(missing("| 1 | x | `it::usage::fresh`, `replay::totals` | done |"), [""; 0]);
        assert_eq!(
            missing(&format!("| 1 | x | `{}::store::memory::idempotent` | done |", env!("CARGO_CRATE_NAME"))),
            [""; 0]
        );
        assert_eq!(missing("| 1 | x | `it::usage::fres` | done |").len(), 1);
        assert_eq!(
            missing("| 1 | x | `it::quota::fresh` | done |"),
            ["docs/mission.md:3: no test `it::quota::fresh`"]
        );
        assert_eq!(missing("| 1 | x | `it::quota::fresh` | not yet |"), [""; 0]);
    }

    #[test]
    fn a_path_of_this_machine_is_found() {
        let bad =
            [concat!("see /wo", "rk/main"), concat!("cd ..", "/shared/data"), concat!("/home", "/me/x")];
        for line in bad {
            assert_eq!(machine_paths(&[source("README.md", line)]).len(), 1, "{line}");
        }
        assert_eq!(machine_paths(&[source("README.md", "net/work/x, https://x.org//work of")]), [""; 0]);
    }

    #[test]
    fn a_newer_dependency_is_found() {
        let metadata = |kind: &str| {
            serde_json::json!({
                "resolve": {"root": "us", "nodes": [
                    {"id": "us", "deps": [{"pkg": "a", "dep_kinds": [{"kind": null}]}, {"pkg": "b", "dep_kinds": [{"kind": kind}]}]},
                    {"id": "a", "deps": []}, {"id": "b", "deps": []},
                ]},
                "packages": [
                    {"id": "a", "name": "a", "version": "1.0.0", "rust_version": "1.89.1"},
                    {"id": "b", "name": "b", "version": "1.0.0", "rust_version": "1.90"},
                ],
            })
        };
        assert_eq!(newer_dependencies(&metadata("build"), "1.89").len(), 1);
        assert_eq!(newer_dependencies(&metadata("dev"), "1.89"), [""; 0]);
    }
}
