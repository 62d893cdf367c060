//! `tenure verify --audit`, `--install-audit` and `--remove-audit`.

use serde::Serialize;
use serde_json::json;

use super::{
    super::{
        failure::{Failure, Failures},
        format::Format,
        show,
    },
    Verify, about, batches_of, in_short, told, verdict,
};
use crate::verify::{
    finding::Finding,
    sql,
    target::{Place, Target},
    trail::Told,
};

/// A sink's trail.
#[derive(Serialize)]
struct Judged {
    sink: String,
    #[serde(flatten)]
    told: Told,
    findings: Vec<Finding>,
}

pub(super) async fn check(how: &Verify, format: Format, targets: &[Target]) -> Result<(), Failure> {
    let (mut all, mut failures) = (Vec::new(), Failures::new(format));
    for target in targets {
        match judge(how, target).await {
            Ok(judged) => all.push(judged),
            Err(failure) => failures.note(&about(&target.place), failure)?,
        }
    }
    match format {
        Format::Table => all.iter().try_for_each(tell)?,
        Format::Json | Format::Ndjson => show::list(format, &all, &all)?,
    }
    verdict(all.iter().flat_map(|judged| &judged.findings))?;
    failures.end()
}

async fn judge(how: &Verify, target: &Target) -> Result<Judged, Failure> {
    let sink = how.open(target).await?;
    let (told, findings) = sink.audit(target).await?;
    Ok(Judged { sink: sink.name(), told, findings })
}

fn tell(judged: &Judged) -> Result<(), Failure> {
    let Judged { sink, told: Told { changes, claims, batches, flows }, findings } = judged;
    show::line(sink)?;
    told::findings(findings)?;
    show::line(format!(
        "{} ({}, {}) of {}, in the order of commits: {}",
        show::count(*changes, "change"),
        show::count(*claims, "claim"),
        batches_of(*batches),
        show::count(*flows, "flow"),
        in_short(findings)
    ))
}

/// Prints or runs the scripts that begin or remove trails.
pub(super) async fn script(how: &Verify, format: Format, targets: &[Target]) -> Result<(), Failure> {
    let of = |place: &Place| if how.install_audit { sql::install(place) } else { sql::remove(place) };
    for Target { place, .. } in targets {
        let script = of(place);
        if !how.apply {
            match format {
                Format::Table => show::line(format!("-- {}\n{}", about(place), script.trim_end()))?,
                Format::Json | Format::Ndjson => show::json(format, &json!({ "sink": about(place), "sql": script }))?,
            }
            continue;
        }
        sql::run(place, &script).await?;
        let done = if how.install_audit { "the audit trail has begun" } else { "the audit trail is removed" };
        match format {
            Format::Table => show::line(format!("{}: {done}", about(place)))?,
            Format::Json | Format::Ndjson => show::json(format, &json!({ "sink": about(place), "done": done }))?,
        }
    }
    Ok(())
}
