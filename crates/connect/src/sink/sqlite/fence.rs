//! Fence rows in SQLite. Everything here happens within a transaction that holds the file's write
//! lock, so that reading and deciding cannot be overtaken.

use rusqlite::{Connection, OptionalExtension, Row, params};
use tenure_core::{
    grant::Grant,
    id::FlowId,
    token::{Holder, Token},
};

use super::super::{
    ClaimError, Claimed,
    committer::{Nonce, Stored, Submission},
};
use crate::record::Position;

const NOW: &str = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";

/// The fence row of a flow.
pub(super) fn read(db: &Connection, flow: &FlowId) -> rusqlite::Result<Option<Stored>> {
    let sql = "SELECT lineage, epoch, attempt, holder, seq, nonce FROM tenure_flow_fence WHERE flow = ?";
    db.prepare_cached(sql)?.query_row([flow.as_str()], stored).optional()
}

/// SQLite knows no unsigned numbers; the bits are kept.
fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let number = |at: usize| row.get::<_, i64>(at).map(|n| n as u64);
    let holder: String = row.get(3)?;
    Ok(Stored {
        token: Token { lineage: number(0)?, epoch: number(1)?, attempt: number(2)? as u32 },
        holder: Holder(u128::from_str_radix(&holder, 16).unwrap_or(0)),
        seq: number(4)?,
        nonce: Nonce(number(5)?),
    })
}

/// Raises the fence to the grant's token.
pub(super) fn claim(db: &Connection, grant: &Grant) -> rusqlite::Result<Result<Claimed, ClaimError>> {
    let Token { lineage, epoch, attempt } = grant.token;
    let holder = grant.holder.to_string();
    if let Some(stored) = read(db, &grant.flow)? {
        let mine = stored.token == grant.token && stored.holder == grant.holder;
        if stored.token >= grant.token && !mine {
            return Ok(Err(ClaimError::Higher(stored.token)));
        }
        let sql = format!(
            "UPDATE tenure_flow_fence SET lineage = ?2, epoch = ?3, attempt = ?4, holder = ?5, at = {NOW},
             position = CASE WHEN ?6 > origin THEN NULL ELSE position END, origin = max(origin, ?6) WHERE flow = ?1"
        );
        let values = params![grant.flow.as_str(), lineage as i64, epoch as i64, attempt, holder, grant.origin as i64];
        db.prepare_cached(&sql)?.execute(values)?;
    } else {
        let sql = format!("INSERT INTO tenure_flow_fence VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, NULL, ?6, {NOW})");
        let values = params![grant.flow.as_str(), lineage as i64, epoch as i64, attempt, holder, grant.origin as i64];
        db.prepare_cached(&sql)?.execute(values)?;
    }
    let sql = "SELECT seq, position FROM tenure_flow_fence WHERE flow = ?";
    let claimed = db.prepare_cached(sql)?.query_row([grant.flow.as_str()], |row| {
        let position: Option<String> = row.get(1)?;
        Ok(Claimed { seq: row.get::<_, i64>(0)? as u64, position: position.map(|p| Position(p.into())) })
    })?;
    Ok(Ok(claimed))
}

/// Moves a flow's fence row on by one batch, if it is exactly as the writer believes; false if not.
pub(super) fn advance<P>(
    db: &Connection,
    what: &Submission<P>,
    nonce: Nonce,
    position: Option<&Position>,
) -> rusqlite::Result<bool> {
    let sql = format!(
        "UPDATE tenure_flow_fence SET seq = ?6, nonce = ?7, position = coalesce(?8, position), at = {NOW}
         WHERE flow = ?1 AND lineage = ?2 AND epoch = ?3 AND attempt = ?4 AND holder = ?5 AND seq = ?6 - 1"
    );
    let Token { lineage, epoch, attempt } = what.token;
    let changed = db.prepare_cached(&sql)?.execute(params![
        what.flow.as_str(),
        lineage as i64,
        epoch as i64,
        attempt,
        what.holder.to_string(),
        what.seq as i64,
        nonce.0 as i64,
        position.map(|p| p.0.as_ref()),
    ])?;
    Ok(changed == 1)
}
