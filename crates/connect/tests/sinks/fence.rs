//! What the fence promises, whichever database keeps it.

use serde_json::json;
use tenure_connect::sink::ClaimError;
use tenure_core::{flow::supervisor::Code, grant::Grant, token::Token};

use crate::{
    house::{Database, Db, at, claimed, fenced, grant, open, rows, settled, sinks, spec, token_in, write},
    sqlite::File,
};

/// An empty database of each kind; a failure shows in which one it was.
fn each() -> impl Iterator<Item = Box<dyn Database>> {
    let all: [Box<dyn Database>; 2] = [Box::new(Db::new()), Box::new(File::new())];
    all.into_iter().inspect(|database| println!("in {}", database.sink(json!({}))))
}

#[tokio::test]
async fn rows_and_position_land_together_and_the_next_claim_reads_them() {
    for database in each() {
        let sinks = sinks("a/1");
        let (sink, g) = (database.door(&sinks, "f"), grant("f", 1, 1));
        assert_eq!(sink.claim(&g).await, claimed(0, None));
        assert_eq!(write(&sink, &g, 1, at(r"p'1\", rows(0..3))).await, settled(3, 0));
        assert_eq!(write(&sink, &g, 2, rows(3..4)).await, settled(1, 0));
        assert_eq!(sink.claim(&g).await, claimed(2, Some(r"p'1\")), "claiming again changes nothing");
        assert_eq!(database.numbers(), [0, 1, 2, 3]);
        let restarted = Grant { origin: 5, ..grant("f", 2, 1) };
        assert_eq!(sink.claim(&restarted).await, claimed(2, None), "a greater origin forgets the position");
        assert_eq!(token_in(&*database, &sinks).await, Some(Token::first(1, 2)));
    }
}

#[tokio::test]
async fn a_stale_token_and_a_stale_sequence_write_nothing() {
    for database in each() {
        let (one, two) = (sinks("a/1"), sinks("b/2"));
        let (old, new) = (database.door(&one, "f"), database.door(&two, "f"));
        let (g1, g2) = (grant("f", 1, 1), grant("f", 2, 2));
        old.claim(&g1).await.unwrap();
        assert_eq!(write(&old, &g1, 1, rows(0..1)).await, settled(1, 0));
        assert_eq!(new.claim(&g2).await, claimed(1, None));
        assert_eq!(write(&old, &g1, 2, rows(1..2)).await, fenced(2));
        assert_eq!(old.claim(&g1).await, Err(ClaimError::Higher(Token::first(1, 2))));
        let clone = grant("f", 2, 3);
        assert_eq!(old.claim(&clone).await, Err(ClaimError::Higher(Token::first(1, 2))), "same token, other holder");
        assert_eq!(write(&new, &g2, 2, rows(2..3)).await, settled(1, 0));
        assert_eq!(write(&new, &g2, 2, rows(3..4)).await, fenced(2), "same token, stale sequence");
        assert_eq!(database.numbers(), [0, 2]);
    }
}

#[tokio::test]
async fn a_fence_never_goes_back() {
    for database in each() {
        let sinks = sinks("a/1");
        let mut highest = 0;
        for (turn, epoch) in [3, 1, 5, 5, 4, 9, 2, 9, 8].into_iter().enumerate() {
            // Each turn another holder: even the same token does not pass.
            let result = database.door(&sinks, "f").claim(&grant("f", epoch, turn as u128)).await;
            assert_eq!(result.is_ok(), epoch > highest, "epoch {epoch} after {highest}");
            highest = highest.max(epoch);
            assert_eq!(token_in(&*database, &sinks).await, Some(Token::first(1, highest)));
        }
    }
}

#[tokio::test]
async fn a_fence_is_raised_without_the_users_table() {
    for database in each() {
        let sinks = sinks("a/1");
        let (sink, g) = (database.door(&sinks, "f"), grant("f", 2, 2));
        assert_eq!(sink.fence(&g).await, Ok(()));
        assert_eq!(sink.fence(&g).await, Ok(()), "raising it again changes nothing");
        let higher = Err(ClaimError::Higher(Token::first(1, 2)));
        assert_eq!(sink.fence(&grant("f", 1, 1)).await, higher, "a smaller token");
        assert_eq!(sink.fence(&grant("f", 2, 3)).await, higher, "same token, other holder");
        assert_eq!(token_in(&*database, &sinks).await, Some(Token::first(1, 2)));
        assert_eq!(database.tables(), ["tenure_flow_fence", "tenure_rejected"]);
    }
}

#[tokio::test]
async fn a_fence_keeps_what_the_next_claim_goes_on_from() {
    for database in each() {
        let sinks = sinks("a/1");
        let (sink, g) = (database.door(&sinks, "f"), grant("f", 1, 1));
        sink.claim(&g).await.unwrap();
        assert_eq!(write(&sink, &g, 1, at("p", rows(0..1))).await, settled(1, 0));
        assert_eq!(sink.fence(&grant("f", 2, 2)).await, Ok(()));
        let next = grant("f", 3, 3);
        assert_eq!(sink.claim(&next).await, claimed(1, Some("p")));
        assert_eq!(write(&sink, &next, 2, rows(1..2)).await, settled(1, 0));
        assert_eq!(database.numbers(), [0, 1]);
    }
}

#[tokio::test]
async fn a_fence_is_raised_anew_where_somebody_removed_the_tables() {
    for database in each() {
        let sinks = sinks("a/1");
        let (sink, g) = (database.door(&sinks, "f"), grant("f", 1, 1));
        sink.claim(&g).await.unwrap();
        database.run("DROP TABLE t; DROP TABLE tenure_flow_fence");
        let stopped = grant("f", 2, 2);
        assert!(matches!(sink.fence(&stopped).await, Err(ClaimError::Failed(_))), "told once");
        assert_eq!(sink.fence(&stopped).await, Ok(()));
        assert_eq!(database.tables(), ["tenure_flow_fence", "tenure_rejected"]);
        assert_eq!(token_in(&*database, &sinks).await, Some(Token::first(1, 2)));
    }
}

#[tokio::test]
async fn a_table_that_does_not_fit_keeps_no_flow_from_being_fenced_off() {
    for database in each() {
        let sinks = sinks("a/1");
        let (old, g1, g2) = (database.door(&sinks, "f"), grant("f", 1, 1), grant("f", 2, 2));
        old.claim(&g1).await.unwrap();
        assert_eq!(write(&old, &g1, 1, rows(0..1)).await, settled(1, 0));
        let changed = open(&sinks, &spec("f", database.sink(json!({"missing": "/n"}))));
        let Err(ClaimError::Failed(reason)) = changed.claim(&g2).await else { panic!() };
        assert_eq!(reason.code, Code::SinkRefuses);
        assert_eq!(token_in(&*database, &sinks).await, Some(Token::first(1, 1)), "a claim that fails raises nothing");
        assert_eq!(changed.fence(&g2).await, Ok(()));
        assert_eq!(write(&old, &g1, 2, rows(1..2)).await, fenced(2));
        assert_eq!(database.numbers(), [0]);
    }
}
