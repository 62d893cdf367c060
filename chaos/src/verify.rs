//! The product's own check of the sink, `tenure verify`: at the end of a run it must find nothing.

use std::{collections::BTreeSet, fs, io, path::Path};

use serde_json::Value;
use tokio::process::Command;

use crate::bed::{Bed, Class, PG_URL};

/// So many findings are told.
const TOLD_MAX: usize = 5;

/// What it finds that must not be, as accusations.
///
/// # Errors
/// It cannot say: nothing was shown.
pub(crate) async fn findings(bed: &Bed, tenure: &Path, dir: &Path) -> io::Result<Vec<String>> {
    let file = dir.join("flows.ndjson");
    let documents: Vec<String> = bed.flows().map(|(feed, _)| bed.document(feed).to_string()).collect();
    fs::write(&file, documents.join("\n"))?;
    let lines = ask(bed, tenure, &file).await?;
    let unrepeatable = bed.flows().filter(|(feed, _)| bed.class(*feed) == Class::Unrepeatable);
    Ok(accusations(&lines, &unrepeatable.map(|(_, name)| name).collect()))
}

/// Its findings, one a line.
async fn ask(bed: &Bed, tenure: &Path, flows: &Path) -> io::Result<Vec<Value>> {
    let mut command = Command::new(tenure);
    command.args(["--output", "ndjson", "verify", "--sequence", "seq", "--per", "feed", "-f"]).arg(flows);
    command.env(PG_URL, bed.sink.url()).kill_on_drop(true);
    let out = command.output().await?;
    let said = String::from_utf8_lossy(&out.stdout);
    let found: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    // With 1 it has found something, or could not do what it was asked to.
    let understood = out.status.success() || (out.status.code() == Some(1) && found.iter().any(is_violation));
    let refusal = || format!("tenure verify ({}): {said}{}", out.status, String::from_utf8_lossy(&out.stderr));
    if understood { Ok(found) } else { Err(io::Error::other(refusal())) }
}

fn is_violation(finding: &Value) -> bool {
    finding["weight"] == "violation"
}

/// What is sent to a feed without a position while nobody reads is a hole, and rightly so.
fn accusations(findings: &[Value], unrepeatable: &BTreeSet<&str>) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for finding in findings.iter().filter(|finding| is_violation(finding)) {
        let word = |key: &str| finding[key].as_str().unwrap_or_default();
        if word("code") == "hole" && unrepeatable.contains(word("flow")) {
            continue;
        }
        told.push(format!("tenure_verify: {} {} {}: {}", word("code"), word("flow"), word("place"), word("what")));
    }
    let more = told.len().saturating_sub(TOLD_MAX);
    told.truncate(TOLD_MAX);
    told.extend((more > 0).then(|| format!("tenure_verify: and {more} findings more")));
    told
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn violations_are_told_but_for_holes_where_nothing_is_promised() {
        let found = |weight: &str, code: &str, flow: &str| json!({ "weight": weight, "code": code, "flow": flow, "place": "trades.seq", "what": "1" });
        let hole = |flow| found("violation", "hole", flow);
        let found = [hole("f001"), hole("f005"), found("violation", "duplicate", "f005"), found("note", "x", "f001")];
        let told = accusations(&found, &BTreeSet::from(["f005"]));
        assert_eq!(told, ["tenure_verify: hole f001 trades.seq: 1", "tenure_verify: duplicate f005 trades.seq: 1"]);
    }
}
