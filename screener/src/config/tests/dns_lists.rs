//! What whoever writes `[tests.dnsbl]` wrongly is told.

use super::*;

#[test]
fn an_address_without_a_port_is_answered_with_the_port_that_is_usual_there() {
    for (text, message) in [
        (
            "[tests.dnsbl]\nresolvers = [\"127.0.0.1\"]",
            "s.toml:2:14: tests.dnsbl.resolvers[0]: \"127.0.0.1\" is no address with a port: add the port: \"127.0.0.1:53\"",
        ),
        (
            "[tests.dnsbl]\nresolvers = [\"2001:db8::53\"]",
            "s.toml:2:14: tests.dnsbl.resolvers[0]: \"2001:db8::53\" is no address with a port: add the port: \
             \"[2001:db8::53]:53\"",
        ),
        (
            "[tests.dnsbl]\nresolvers = [\"ns.example.com\"]",
            "s.toml:2:14: tests.dnsbl.resolvers[0]: \"ns.example.com\" is no address with a port: write it like \
             \"127.0.0.1:53\" or \"[::1]:53\"",
        ),
        (
            "[tests.dnsbl]\nresolvers = [\"127.0.0.1:0\"]",
            "s.toml:2:14: tests.dnsbl.resolvers[0]: \"127.0.0.1:0\": port 0 is no port: it is usually 53",
        ),
        (
            "[observe]\nmetrics = \"127.0.0.1\"",
            "s.toml:2:11: observe.metrics: \"127.0.0.1\" is no address with a port: add the port: \"127.0.0.1:9725\"",
        ),
    ] {
        assert_eq!(refusal(text), message);
    }
}

#[test]
fn one_bracket_where_there_can_be_several_tables_is_told_from_a_wrong_type() {
    for (text, key) in [
        ("[tests.dnsbl.list]\nzone = \"bl.test\"\n", "tests.dnsbl.list"),
        ("[permit]\nprefix = \"192.0.2.0/24\"\n", "permit"),
        ("[feed]\nname = \"drop\"\n", "feed"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.starts_with("s.toml:1:"), "{refusal}");
        let message = format!("{key}: there can be several of these: write [[{key}]], with two brackets on each side");
        assert!(refusal.ends_with(&message), "{refusal}");
    }
    let codes = refusal("[[tests.dnsbl.list]]\nzone = \"bl.test\"\nfamilies = { ipv4 = true }\n");
    assert!(codes.ends_with("wrong type: a table stands here; write a list, [...]"), "{codes}");
}

#[test]
fn a_key_that_cannot_stand_in_a_name_is_pointed_at_and_not_the_zone() {
    for key in ["", "hunter2 ", "hunter2\\n", "hunter.", "hunter2/x", &"h".repeat(64)] {
        let refusal = refusal(&format!("[[tests.dnsbl.list]]\nzone = \"{{key}}.zen.test\"\nkey = \"{key}\"\n"));
        assert_eq!(
            refusal,
            "s.toml:3:7: tests.dnsbl.list[0].key: this cannot be a key: it stands in a name, so write letters, digits and \
             hyphens only"
        );
    }
}

#[test]
fn a_site_with_a_place_for_a_key_is_shown_the_form_that_has_one() {
    assert_eq!(
        refusal("[tests.dnsbl]\nsites = [\"{key}.zen.test=127.0.0.2*3\"]\n"),
        "s.toml:2:10: tests.dnsbl.sites[0]: \"{key}.zen.test=127.0.0.2*3\": a list with a key is a [[tests.dnsbl.list]] with \
         zone = \"{key}.zen.test\" and key = \"…\""
    );
}

#[test]
fn a_duration_that_was_refused_is_not_compared_with_others() {
    let list = "[[tests.dnsbl.list]]\nzone = \"bl.test\"\ndeadline = \"2s\"\nmin_ttl = \"5m\"\n";
    for wrong in ["deadline = \"6\"", "max_ttl = \"1\""] {
        let refusal = refusal(&format!("[tests.dnsbl]\n{wrong}\n{list}"));
        assert!(refusal.starts_with("s.toml:2:") && refusal.contains("is no duration"), "{refusal}");
        assert_eq!(refusal.lines().count(), 1, "{refusal}");
    }
}

#[test]
fn an_answer_without_quotes_is_told_from_a_wrong_type() {
    let refusal = refusal("[[tests.dnsbl.list]]\nzone = \"bl.test\"\ncodes = { 127.0.0.2 = 3 }\n");
    assert!(refusal.starts_with("s.toml:3:") && refusal.contains("tests.dnsbl.list[0].codes.127"), "{refusal}");
    assert!(refusal.ends_with("an answer of a DNS list stands in quotes: write \"127.0.0.2\" = 3"), "{refusal}");
}

#[test]
fn a_key_that_stands_in_the_zone_itself_is_noted_and_not_shown_by_that() {
    let notes = |text: &str| Config::parse(text, "s.toml").unwrap().notes().join("\n");
    let site = "[tests.dnsbl]\nsites = [\"hunter2.zen.dq.spamhaus.net*3\"]\n";
    let list = "[[tests.dnsbl.list]]\nzone = \"hunter2.combined.mail.abusix.zone\"\nweight = 3\n";
    for (text, rest) in [(site, "zen.dq.spamhaus.net"), (list, "combined.mail.abusix.zone")] {
        let notes = notes(text);
        assert!(notes.contains(&format!("write zone = \"{{key}}.{rest}\" and key = \"…\"")), "{notes}");
        assert!(!notes.contains("hunter2"), "{notes}");
    }
    let keyed = "[[tests.dnsbl.list]]\nzone = \"{key}.zen.dq.spamhaus.net\"\nkey = \"hunter2\"\nweight = 3\n";
    for text in [keyed, "[[tests.dnsbl.list]]\nzone = \"zen.spamhaus.org\"\nweight = 3\n"] {
        let notes = notes(text);
        assert!(!notes.contains("tests.dnsbl"), "{notes}");
    }
}
