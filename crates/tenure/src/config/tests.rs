use clap::Parser;

use super::*;

#[derive(Parser)]
struct Up {
    #[command(flatten)]
    raw: RawConfig,
}

fn flags(words: &[&str]) -> RawConfig {
    Up::try_parse_from(std::iter::once("up").chain(words.iter().copied())).unwrap().raw
}

fn complaints(words: &[&str]) -> Vec<String> {
    flags(words).check().unwrap_err()
}

#[test]
fn with_no_flags_it_is_one_node_on_loopback() {
    let config = flags(&[]).check().unwrap();
    assert_eq!(config.data, PathBuf::from("./tenure-data"));
    assert_eq!((config.api.to_string(), config.peer.to_string()), ("127.0.0.1:7070".into(), "127.0.0.1:7071".into()));
    assert_eq!((config.role, config.store, config.starts_per_second), (Role::All, StoreKind::Embedded, 500));
    assert_eq!(config.timing, Timing::default());
}

#[test]
fn every_flag_arrives() {
    let words = "--data d --name n1 --api 127.0.0.1:0 --peer [::1]:0 --join a:1 --join b:2 --role worker --label zone=eu --label k= \
                 --capacity 9 --log debug --log-format json --starts-per-second 7 --session-ttl 10s --renew 900ms";
    let config = flags(&words.split_whitespace().collect::<Vec<_>>()).check().unwrap();
    assert_eq!((config.name.as_str(), config.join.join(" "), config.role), ("n1", "a:1 b:2".into(), Role::Worker));
    assert_eq!(config.labels.into_iter().collect::<Vec<_>>(), [("k".into(), "".into()), ("zone".into(), "eu".into())]);
    assert_eq!((config.capacity, config.flows, config.log_format), (Some(9), vec![], LogFormat::Json));
    assert_eq!((config.timing.ttl, config.timing.renew), (Duration::from_secs(10), Duration::from_millis(900)));
}

#[test]
fn all_complaints_come_at_once() {
    let said = complaints(
        &"--name N! --api 0.0.0.0:7070 --peer x --join nowhere --store etcd://h --label zone --starts-per-second 0 --log a=b=c --session-ttl 3s"
            .split(' ')
            .collect::<Vec<_>>(),
    );
    let starts = [
        "store: etcd",
        "api: 0.0.0.0:7070",
        "peer: \"x\"",
        "name: \"N!\"",
        "T1:",
        "label: \"zone\"",
        "join: \"nowhere\"",
        "advertise:",
        "starts-per-second: 0",
        "log:",
    ];
    assert_eq!(said.len(), starts.len(), "{said:#?}");
    for (said, start) in said.iter().zip(starts) {
        assert!(said.starts_with(start), "{said} / {start}");
    }
}

#[test]
fn an_address_that_others_reach_needs_a_word() {
    assert!(complaints(&["--api", "0.0.0.0:7070"])[0].contains("--insecure"));
    assert!(complaints(&["--peer", "10.0.0.1:7071"])[0].contains("--insecure"));
    assert!(flags(&["--api", "10.0.0.1:7070", "--insecure"]).check().unwrap().insecure);
    assert!(flags(&["--api", "localhost:1", "--peer", "[::1]:2"]).check().is_ok());
}

#[test]
fn an_address_of_every_interface_needs_a_name_for_others() {
    assert!(complaints(&["--api", "0.0.0.0:7070", "--insecure"])[0].starts_with("advertise:"));
    let config = flags(&["--api", "0.0.0.0:7070", "--insecure", "--advertise", "h7"]).check().unwrap();
    assert_eq!(config.told(config.api), "h7:7070");
    assert_eq!(flags(&[]).check().unwrap().told(([127, 0, 0, 1], 9).into()), "127.0.0.1:9");
}

#[test]
fn stores_that_are_not_there_yet_are_refused_by_name() {
    assert!(complaints(&["--store", "postgres://h/d"])[0].contains("PostgreSQL as a store is not built in yet"));
    assert!(complaints(&["--store", "sqlite"])[0].contains("there are embedded and memory"));
    assert!(complaints(&["--role", "worker"])[0].contains("--join"));
    assert!(complaints(&["--role", "worker", "--join", "h:1", "--flows", "f.yaml"])[0].starts_with("flows:"));
}

#[test]
fn flags_go_before_the_file() {
    let file = file::read(
        "tenure.toml",
        "name = \"n9\"\ncapacity = 5\nlabel = { zone = \"eu\" }\njoin = [\"h:1\"]\nsession-ttl = \"6s\"\n[exec.date]\ncommand = [\"date\", \"+%s\"]\n",
    )
    .unwrap();
    let config = flags(&["--name", "n1"]).or(file).check().unwrap();
    assert_eq!((config.name.as_str(), config.capacity), ("n1", Some(5)));
    assert_eq!(config.labels["zone"], "eu");
    assert_eq!(config.timing.ttl, Duration::from_secs(6));
    assert_eq!(config.exec["date"], ["date", "+%s"]);
}

#[test]
fn what_is_wrong_in_the_file_has_its_place() {
    let wrong = |text: &str| file::read("tenure.toml", text).unwrap_err().remove(0);
    let table = [
        (
            "name = \"n1\"\nnmae = \"n2\"\n",
            "tenure.toml:2:1: unknown key `nmae`; did you mean `name`? Known here: data, name,",
        ),
        ("capacity = \"big\"", "tenure.toml:1:12: expected a whole number, found string \"big\""),
        ("role = \"boss\"", "tenure.toml:1:8: unknown name `boss`; known here: all, server, worker"),
        ("[exec.x]\ncomand = []", "tenure.toml:2:1: unknown key `comand`; did you mean `command`?"),
        ("renew = \"soon\"", "tenure.toml:1:9: \"soon\" is not a span of time"),
        ("name = \n", "tenure.toml:1:8: malformed TOML:"),
        ("label = 3", "tenure.toml:1:9: labels are a table"),
    ];
    for (text, start) in table {
        assert!(wrong(text).starts_with(start), "{}\n{start}", wrong(text));
    }
}

#[test]
fn a_missing_file_matters_only_if_it_was_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none.toml");
    let raw = RawConfig { config: Some(path.clone()), ..RawConfig::default() };
    assert!(raw.with_file().unwrap_err()[0].starts_with(&path.display().to_string()));
}
