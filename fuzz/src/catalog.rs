//! What the store gives back, and what nodes tell each other: keys, records, news.

use serde::{Serialize, de::DeserializeOwned};
use tenure::{
    catalog::{Kind, decode, encode, keys, watching},
    news::{FlowNews, News, NodeNews, Rates},
};
use tenure_core::{
    flow::{Document, Stage},
    id::{FlowId, NodeName, Revision, SessionId},
    mirror::Absorb,
    moment::Moment,
    picture::{Incumbent, Picture},
    record::{Assignment, Cluster, Cordon, Desired, Flow, Form, Node, Order, Outcome, Phase, Purpose, Verdict, Why},
    token::{Holder, Token},
};
use tenure_store::{Change, Entry, Key};

use crate::draw::Draw;

/// A key names one thing, and that thing has that key.
pub(crate) fn catalog_key(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(kind) = keys::parse(text) else { return };
    let written: Key = match kind {
        Kind::Flow(id) => keys::flow(&id),
        Kind::Node(name) => keys::node(&name),
        Kind::Cordon(name) => keys::cordon(&name),
        Kind::Assignment(id) => keys::assignment(&id),
        Kind::Verdict(id) => keys::verdict(&id),
        Kind::Order(node, id) => {
            assert!(text.starts_with(keys::inbox(&node).as_ref()));
            keys::order(&node, &id)
        }
        Kind::Office => keys::OFFICE.into(),
        Kind::Cluster => keys::CLUSTER.into(),
    };
    assert_eq!(written.as_ref(), text);
    let covered = watching::picture_prefixes().iter().any(|prefix| text.starts_with(prefix.as_ref()));
    assert!(covered || text.starts_with("inbox/"), "nobody watches {text}");
}

/// The kinds of records, by a key of each.
const KEYS: [&str; 8] = ["flow/a", "node/a", "cordon/a", "assign/a", "verdict/a", "inbox/n/a", "office", "cluster"];

/// A record of any kind.
pub(crate) fn catalog_record(data: &[u8]) {
    let mut draw = Draw::new(data);
    let kind = draw.below(KEYS.len());
    let bytes = draw.rest();
    let read = match kind {
        0 => again::<Flow>(bytes),
        1 => again::<Node>(bytes),
        2 => again::<Cordon>(bytes),
        3 => again::<Assignment>(bytes),
        4 => again::<Verdict>(bytes),
        5 => again::<Order>(bytes),
        6 => again::<Incumbent>(bytes),
        _ => again::<Cluster>(bytes),
    };
    let at = tenure_store::Revision(3);
    let entry = Entry { key: KEYS[kind].into(), value: bytes.to_vec().into(), created: at, modified: at, lease: None };
    let is_order = kind == 5;
    let fact = watching::fact(&entry);
    assert_eq!(fact.is_some(), read && !is_order, "what can be read is told");
    assert_eq!(watching::inbox_input(Change::Put(entry)).is_some(), read && is_order);
    if let Some(fact) = fact {
        let mut picture = Picture::default();
        picture.absorb(fact.clone());
        let once = picture.clone();
        picture.absorb(fact);
        assert_eq!(picture, once, "told twice is told once");
    }
}

fn again<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> bool {
    let Ok(record) = decode::<T>(bytes) else { return false };
    let written = encode(&record);
    assert_eq!(decode::<T>(&written).as_ref(), Ok(&record));
    // A record of another version is never taken for one of this.
    let other = [b"2 ", &written[2..]].concat();
    assert!(decode::<T>(&other).is_err());
    true
}

/// Pushes of news, one per line, in the order in which they come.
pub(crate) fn news_push(data: &[u8]) {
    let mut news = News::default();
    let mut now = Moment(1000);
    for line in data.split(|b| *b == b'\n') {
        let Ok(push) = serde_json::from_slice::<NodeNews>(line) else { continue };
        let written = serde_json::to_vec(&push).expect("news is plain data");
        assert_eq!(serde_json::from_slice::<NodeNews>(&written).ok().as_ref(), Some(&push));
        now = Moment(now.0 + 1000);
        let before: Vec<Option<Token>> = push.flows.iter().map(|f| news.flow(&f.flow).map(|t| t.news.token)).collect();
        let changed = news.hear(now, push.clone());
        assert!(changed.iter().all(|id| push.flows.iter().any(|f| f.flow == *id)), "only what was named has changed");
        assert!(news.hear(now, push.clone()).is_empty(), "the same push again is no news");
        if !push.complete {
            for (flow, before) in push.flows.iter().zip(before) {
                let after = news.flow(&flow.flow).map(|told| told.news.token);
                assert!(before <= after, "a lesser token does not overwrite a greater one");
            }
        }
        for flow in &push.flows {
            if let Some(told) = news.flow(&flow.flow) {
                assert!(told.since <= told.heard && told.word(now).fresh);
                let _age = told.last_record_age(Moment(u64::MAX));
            }
        }
        assert!(!news.is_silent(&push.node, push.session, now));
    }
}

fn document() -> Document {
    let json = r#"{"id":"a","source":{"tcp":{"address":"h:1"}},"codec":{"lines":{}},"sink":{"stdout":{}}}"#;
    serde_json::from_str(json).expect("a document")
}

pub(crate) fn key_seeds() -> Vec<Vec<u8>> {
    KEYS.map(|key| key.as_bytes().to_vec()).to_vec()
}

pub(crate) fn record_seeds() -> Vec<Vec<u8>> {
    let (n1, n2) = (NodeName::new("n1").expect("a name"), NodeName::new("n2").expect("a name"));
    let (session, at) = (SessionId(7), Revision(9));
    let flow = Flow {
        wish: Some(n1.clone()),
        desired: Desired::Suspended,
        earlier: vec![Form { document: document(), origin: 3, until: at }],
        ..Flow::new(document())
    };
    let node = Node {
        holder: Holder(u128::MAX),
        boot: "b".to_owned(),
        home: "h".to_owned(),
        api: "h:1".to_owned(),
        peer: Some("h:2".to_owned()),
        runs_flows: true,
        labels: [("zone".to_owned(), "eu".to_owned())].into(),
        capacity: Some(5),
        leaving: true,
        version: "1".to_owned(),
        lease: 3,
    };
    let first = Assignment::first(n1.clone(), session, 1, Purpose::Run, at, Why::HolderGone { node: n2.clone() });
    let phase = Phase::Leaving { to: n2, to_session: session, why: Why::Asked };
    let assignment = Assignment { phase, ..first };
    let verdict = Verdict { outcome: Outcome::Terminated, generation: at, token: Token::first(1, 2), forced: true };
    let order = Order { assignment: assignment.clone(), flow: flow.clone() };
    let records = [
        encode(&flow),
        encode(&node),
        encode(&Cordon::Draining),
        encode(&assignment),
        encode(&verdict),
        encode(&order),
        encode(&Incumbent { node: n1, session }),
        encode(&Cluster { id: "c".to_owned(), lineage: 1 }),
    ];
    records.iter().enumerate().map(|(kind, record)| [&[kind as u8], &record[..]].concat()).collect()
}

pub(crate) fn news_seeds() -> Vec<Vec<u8>> {
    let flow = |epoch, stage| FlowNews {
        flow: FlowId::new("a").expect("an id"),
        token: Token::first(1, epoch),
        stage,
        reason: None,
        last_error: None,
        rates: Rates { bytes_per_second: 1.5, bytes: 7, ..Rates::default() },
        last_record_age_ms: Some(5),
    };
    let push = |number, complete, flows| NodeNews {
        node: NodeName::new("n1").expect("a name"),
        session: SessionId(7),
        number,
        complete,
        flows,
    };
    let pushes = [
        push(1, false, vec![flow(2, Stage::Running)]),
        push(2, false, vec![flow(1, Stage::Waiting), flow(2, Stage::Ended)]),
        push(3, true, Vec::new()),
    ];
    let lines = pushes.map(|push| serde_json::to_vec(&push).expect("plain data"));
    vec![lines.join(&b'\n'), lines[0].clone()]
}
