//! Feeds that refuse, flood, send a line of 10 MiB, half a character, or nothing: each is stated for
//! what it is, no node falls over, and the feeds beside them flow on.

mod cluster;

use std::collections::BTreeSet;

use cluster::{Bed, PATIENCE, figure, until};
use serde_json::{Value, json};
use tenure::demo::{
    documents::{self, Way},
    feeds::{Manner, Plan},
};

const PROPER: usize = 0;
const REFUSES: usize = 1;
const FLOODS: usize = 2;
const LONG_LINE: usize = 3;
const HALF_UTF8: usize = 4;
const SILENT: usize = 5;
const NOBODY: usize = 6;
const HALF_UTF8_MESSAGE: usize = 7;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feeds_that_misbehave_are_stated_for_what_they_are_and_disturb_nobody() {
    let mut bed = Bed::new(1, 0, &Plan::new(8)).await;
    let manners = [
        (REFUSES, Manner::Refuse),
        (FLOODS, Manner::Flood),
        (LONG_LINE, Manner::LongLine),
        (HALF_UTF8, Manner::HalfUtf8),
        (SILENT, Manner::Silent),
        (HALF_UTF8_MESSAGE, Manner::HalfUtf8),
    ];
    for (feed, manner) in manners {
        bed.server.misbehave(feed, manner);
    }
    let flows: Vec<Value> = (0..8).map(|feed| document(&bed, feed)).collect();
    let applied = bed.api().apply(&flows).await.expect("the flows are applied");
    assert_eq!((applied.applied, applied.failed), (8, 0), "{:?}", applied.outcomes);

    for (feed, codes) in [
        (REFUSES, &["source_closed", "source_unreachable", "source_failed"][..]),
        (SILENT, &["quiet"]),
        (NOBODY, &["source_unreachable"]),
        (HALF_UTF8_MESSAGE, &["source_failed"]),
    ] {
        is_stated(&mut bed, feed, codes).await;
    }
    for feed in [LONG_LINE, HALF_UTF8] {
        is_kept_aside(&bed, feed).await;
    }
    until("the flood lands, too", PATIENCE, || async {
        bed.rows().await.get(bed.server.name(FLOODS)).is_some_and(|rows| *rows > 20_000)
    })
    .await;
    bed.fleet.check().expect("the node lives");
    assert_eq!(bed.flows().await[bed.server.name(PROPER)].epoch(), Some(1), "nobody was moved for it");
    let flowing = [PROPER, FLOODS, LONG_LINE, HALF_UTF8].map(|feed| bed.server.name(feed).to_owned());
    bed.close(&BTreeSet::from(flowing)).await;
}

fn document(bed: &Bed, feed: usize) -> Value {
    let way = if feed == HALF_UTF8_MESSAGE { Way::WebSocket } else { Way::Tcp };
    let mut document = documents::flow(&bed.server, feed, way, &documents::postgres("PG_URL"));
    match feed {
        SILENT => document["supervision"] = json!({ "freshness": "1s" }),
        // Nobody listens there.
        NOBODY => document["source"]["tcp"]["address"] = json!("127.0.0.1:1"),
        _ => {}
    }
    document
}

/// The flow's reason, or its latest error if it runs again at the moment, is one of those.
async fn is_stated(bed: &mut Bed, feed: usize, codes: &[&str]) {
    let (api, name) = (bed.api(), bed.server.name(feed).to_owned());
    until(&format!("{name} is said to be one of {codes:?}"), PATIENCE, || async {
        let Ok(flow) = api.flow(&name).await else { return false };
        let said = [&flow["reason"], &flow["last_error"]];
        said.into_iter().any(|reason| reason["code"].as_str().is_some_and(|code| codes.contains(&code)))
    })
    .await;
    let flow = api.flow(&name).await.expect("the flow");
    figure(format!("{name}: {} {} {}", flow["state"], flow["reason"], flow["last_error"]));
}

/// The bad line is in the database's table of rejected records, with its error.
async fn is_kept_aside(bed: &Bed, feed: usize) {
    let (client, name) = (bed.database().await, bed.server.name(feed));
    let sql = "SELECT error, length FROM tenure_rejected WHERE flow = $1";
    until(&format!("the bad line of {name} is kept aside"), PATIENCE, || async {
        client.query(sql, &[&name]).await.is_ok_and(|rows| !rows.is_empty())
    })
    .await;
    let rows = client.query(sql, &[&name]).await.expect("rejected records");
    figure(format!("{name}: {:?}, {} bytes", rows[0].get::<_, String>(0), rows[0].get::<_, i64>(1)));
}
