//! A node's name where nobody gave one.

use tenure_core::id::NodeName;

/// The host's name, bent to the rule for node names.
pub(super) fn from_host() -> NodeName {
    let host = rustix::system::uname();
    bent(&host.nodename().to_string_lossy())
}

fn bent(host: &str) -> NodeName {
    let kept = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') { c.to_ascii_lowercase() } else { '-' };
    let name: String = host.chars().map(kept).skip_while(|c| !c.is_ascii_alphanumeric()).take(63).collect();
    NodeName::new(&name).or_else(|_| NodeName::new("node")).expect("`node` is a node name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_host_name_becomes_a_node_name() {
        for (host, name) in
            [("Build-7.Example.COM", "build-7.example.com"), ("_x y", "x-y"), ("", "node"), ("ä", "node")]
        {
            assert_eq!(bent(host).as_str(), name, "{host}");
        }
        assert_eq!(bent(&"x".repeat(99)).as_str().len(), 63);
    }
}
