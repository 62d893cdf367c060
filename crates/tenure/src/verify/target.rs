//! Which sinks are checked, and what is known of their tables and flows: from flow documents, or
//! from an address.

use std::collections::BTreeMap;

use tenure_core::flow::{
    Spec,
    spec::{Codec, Column, Order, Secret, Sink},
};

/// Where a sink is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// A database file, relative to the working directory.
    Sqlite(String),
    /// A PostgreSQL database, by a reference to its connection string.
    Postgres(Secret),
}

/// One sink to check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Where it is.
    pub place: Place,
    /// Its tables, as far as they are known.
    pub tables: Vec<Table>,
    /// True if all of its flows that matter are known from documents.
    pub documented: bool,
}

/// A table that flows write into.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Table {
    /// `name`, or `schema.name`.
    pub name: String,
    /// The column that numbers the rows, if one does.
    pub sequence: Option<Sequence>,
    /// The column that tells flows apart.
    pub per: Option<String>,
    /// The flows that write into it; empty if there is no document.
    pub flows: Vec<Known>,
}

/// A column that numbers rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sequence {
    /// Its name.
    pub column: String,
    /// Where it is in a record.
    pub pointer: Option<String>,
    /// Somebody says that it counts up by one.
    pub gapless: bool,
    /// A document says that it rises.
    pub increasing: bool,
    /// It holds the position that the fence row keeps.
    pub is_position: bool,
}

impl Sequence {
    /// True if no number comes twice.
    pub fn rises(&self) -> bool {
        self.gapless || self.increasing
    }
}

/// A flow of which there is a document.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Known {
    /// Its id.
    pub id: String,
    /// The values of its parameters.
    pub params: Vec<String>,
}

/// What the person who checks says about rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Claims {
    /// The column that counts up by one.
    pub sequence: Option<String>,
    /// The column that tells flows apart.
    pub per: Option<String>,
    /// Only this table.
    pub table: Option<String>,
}

impl Target {
    /// A sink of which only the address is known.
    pub fn bare(place: Place, claims: &Claims) -> Target {
        let sequence = |column: &String| Sequence { column: column.clone(), gapless: true, ..Sequence::default() };
        let table = |name: &String| Table {
            name: name.clone(),
            sequence: claims.sequence.as_ref().map(sequence),
            per: claims.per.clone(),
            flows: Vec::new(),
        };
        Target { place, tables: claims.table.iter().map(table).collect(), documented: false }
    }

    /// The sinks of those documents, each once; sinks that keep nothing are left out.
    pub fn of<'s>(specs: impl IntoIterator<Item = &'s Spec>, claims: &Claims) -> Vec<Target> {
        let mut sinks: BTreeMap<Place, BTreeMap<String, Vec<&Spec>>> = BTreeMap::new();
        for spec in specs {
            let Some((place, table, _)) = sink(&spec.sink) else { continue };
            if claims.table.as_deref().is_none_or(|only| only == table) {
                sinks.entry(place).or_default().entry(table.to_owned()).or_default().push(spec);
            }
        }
        let target = |(place, tables): (Place, BTreeMap<String, Vec<&Spec>>)| Target {
            place,
            tables: tables.iter().map(|(name, specs)| Table::of(name, specs, claims)).collect(),
            documented: true,
        };
        sinks.into_iter().map(target).collect()
    }

    /// The flows of which there is a document.
    pub fn flows(&self) -> impl Iterator<Item = &str> {
        self.tables.iter().flat_map(|table| &table.flows).map(|flow| flow.id.as_str())
    }
}

impl Table {
    fn of(name: &str, specs: &[&Spec], claims: &Claims) -> Table {
        let known = |spec: &&Spec| Known { id: spec.id.to_string(), params: spec.params.values().cloned().collect() };
        let mut flows: Vec<Known> = specs.iter().map(known).collect();
        flows.sort();
        Table { name: name.to_owned(), sequence: sequence(specs, claims), per: claims.per.clone(), flows }
    }
}

/// The column that a person names, or the one that all documents fill with the position.
fn sequence(specs: &[&Spec], claims: &Claims) -> Option<Sequence> {
    let derived = || {
        let mut columns = specs.iter().map(|spec| position_column(spec));
        let first = columns.next()??;
        columns.all(|other| other == Some(first)).then(|| first.to_owned())
    };
    let column = claims.sequence.clone().or_else(derived)?;
    let pointers = specs.iter().map(|spec| pointer_of(spec, &column));
    let one = all_the_same(pointers).flatten();
    Some(Sequence {
        gapless: claims.sequence.is_some(),
        increasing: specs.iter().all(|spec| rises(spec)) && specs.iter().all(|s| position_column(s) == Some(&column)),
        is_position: specs.iter().all(|spec| position_column(spec) == Some(&column)),
        pointer: one.map(str::to_owned),
        column,
    })
}

fn all_the_same<T: PartialEq>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.all(|other| other == first).then_some(first)
}

fn pointer_of<'s>(spec: &'s Spec, column: &str) -> Option<&'s str> {
    sink(&spec.sink)?.2.into_iter().find(|(name, _)| *name == column).map(|(_, pointer)| pointer)
}

fn position(spec: &Spec) -> Option<(&str, Order)> {
    match &spec.codec {
        Codec::Ndjson(codec) => codec.position.as_ref().map(|p| (p.pointer(), p.order())),
        Codec::Lines(_) => None,
    }
}

fn rises(spec: &Spec) -> bool {
    position(spec).is_some_and(|(_, order)| order == Order::Increasing)
}

/// The column that holds the position.
fn position_column(spec: &Spec) -> Option<&str> {
    let (at, _) = position(spec)?;
    sink(&spec.sink)?.2.into_iter().find(|(_, pointer)| *pointer == at).map(|(name, _)| name)
}

/// Columns and where their values are.
type Columns<'s> = Vec<(&'s str, &'s str)>;

fn sink(sink: &Sink) -> Option<(Place, &str, Columns<'_>)> {
    fn columns<'s>(all: impl Iterator<Item = (&'s String, &'s Column)>) -> Columns<'s> {
        all.map(|(name, column)| (name.as_str(), column.pointer())).collect()
    }
    match sink {
        Sink::Sqlite(s) => Some((Place::Sqlite(s.path.clone()), &s.table, columns(s.columns.iter()))),
        Sink::Postgres(p) => Some((Place::Postgres(p.url.clone()), &p.table, columns(p.columns.iter()))),
        Sink::Stdout(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::Gathered;

    fn specs(text: &str) -> Vec<Spec> {
        let all = Gathered::from_text("f", text);
        assert_eq!(all.mistakes, []);
        all.found.into_iter().map(|found| found.spec).collect()
    }

    fn document(id: &str, position: &str, sink: &str) -> String {
        format!(
            "id: {id}\nparams: {{ feed: name-of-{id} }}\nsource: {{ tcp: {{ address: \"h:1\" }} }}\n\
             codec: {{ ndjson: {{ position: {position} }} }}\nsink: {sink}\n---\n"
        )
    }

    const SQLITE: &str = "{ sqlite: { path: f.db, table: t, columns: { n: /seq, raw: \"\" } } }";
    const POSTGRES: &str = "{ postgres: { url: { env: PG }, table: s.t, columns: { n: /seq } } }";

    #[test]
    fn documents_tell_where_the_sinks_are_and_which_column_holds_the_position() {
        let rising = "{ at: /seq, order: increasing }";
        let text = [document("b", rising, SQLITE), document("a", rising, SQLITE), document("c", "/seq", POSTGRES)];
        let targets = Target::of(&specs(&text.concat()), &Claims::default());
        let places: Vec<&Place> = targets.iter().map(|t| &t.place).collect();
        assert_eq!(places, [&Place::Sqlite("f.db".into()), &Place::Postgres(Secret::Env("PG".into()))]);
        let table = &targets[0].tables[0];
        let sequence = table.sequence.as_ref().unwrap();
        assert_eq!((sequence.column.as_str(), sequence.pointer.as_deref()), ("n", Some("/seq")));
        assert!(sequence.is_position && sequence.increasing && !sequence.gapless);
        assert_eq!(table.flows[0], Known { id: "a".into(), params: vec!["name-of-a".into()] });
        let opaque = targets[1].tables[0].sequence.as_ref().unwrap();
        assert!(opaque.is_position && !opaque.rises());
        assert_eq!(targets[1].flows().collect::<Vec<_>>(), ["c"]);
    }

    #[test]
    fn a_person_may_name_another_column_and_only_one_table() {
        let text = [document("a", "/seq", SQLITE), document("b", "/seq", POSTGRES)].concat();
        let claims = Claims { sequence: Some("k".into()), per: Some("feed".into()), table: Some("t".into()) };
        let targets = Target::of(&specs(&text), &claims);
        let table = &targets[0].tables[0];
        let sequence = table.sequence.as_ref().unwrap();
        assert_eq!((targets.len(), table.per.as_deref()), (1, Some("feed")));
        assert!(sequence.gapless && !sequence.is_position && sequence.pointer.is_none());
    }

    #[test]
    fn flows_that_number_differently_have_no_common_column() {
        let other = SQLITE.replace("n: /seq", "m: /seq");
        let text = [document("a", "/seq", SQLITE), document("b", "/seq", &other)].concat();
        assert_eq!(Target::of(&specs(&text), &Claims::default())[0].tables[0].sequence, None);
    }

    #[test]
    fn a_sink_that_keeps_nothing_is_left_out() {
        let text = "id: a\nsource: { tcp: { address: \"h:1\" } }\ncodec: { lines: {} }\nsink: { stdout: {} }\n";
        assert_eq!(Target::of(&specs(text), &Claims::default()), []);
    }
}
