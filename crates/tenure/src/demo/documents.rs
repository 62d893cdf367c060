//! Flow documents for the feeds of a [`FeedServer`].

use std::path::Path;

use serde_json::{Value, json};

use super::feeds::FeedServer;

/// The table that the flows fill.
pub const TABLE: &str = "trades";

/// How a flow reads its feed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// A TCP connection.
    Tcp,
    /// A WebSocket.
    WebSocket,
}

/// An SQLite sink in that file.
pub fn sqlite(file: &Path) -> Value {
    json!({ "sqlite": {
        "path": file,
        "table": TABLE,
        "columns": { "feed": "/feed", "seq": "/seq", "at": "/at", "price": "/price" },
    }})
}

/// A PostgreSQL sink whose connection string is in that environment variable of each node.
pub fn postgres(variable: &str) -> Value {
    json!({ "postgres": {
        "url": { "env": variable },
        "table": TABLE,
        "columns": {
            "feed": "/feed",
            "seq": { "at": "/seq", "type": "bigint" },
            "at": { "at": "/at", "type": "bigint" },
            "price": { "at": "/price", "type": "numeric" },
        },
    }})
}

/// The flow that reads feed `number` of a server into a sink; its id is the feed's name.
pub fn flow(server: &FeedServer, number: usize, way: Way, sink: &Value) -> Value {
    let hello = "SUBSCRIBE {feed} FROM {position}\n";
    let address = server.address().to_string();
    let source = match way {
        Way::Tcp => json!({ "tcp": { "address": address, "hello": hello } }),
        Way::WebSocket => json!({ "websocket": { "url": format!("ws://{address}/"), "hello": hello } }),
    };
    let name = server.name(number);
    json!({
        "id": name,
        "params": { "feed": name },
        "source": source,
        "codec": { "ndjson": { "position": "/seq" } },
        "sink": sink,
    })
}

#[cfg(test)]
mod tests {
    use tenure_core::flow::Document;

    use super::*;
    use crate::demo::feeds::Plan;

    #[test]
    fn the_documents_are_flows_that_can_be_applied() {
        let server = FeedServer::start(&Plan::new(2)).unwrap();
        for sink in [sqlite(Path::new("/tmp/feeds.db")), postgres("PG_URL")] {
            for way in [Way::Tcp, Way::WebSocket] {
                let document: Document = serde_json::from_value(flow(&server, 1, way, &sink)).unwrap();
                let spec = document.check();
                assert!(spec.is_ok(), "{:?}", spec.err());
            }
        }
    }
}
