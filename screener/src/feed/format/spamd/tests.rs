//! spamd's lists, the lines for its socket, and its configuration.

use super::super::tests::{prefixes, read};
use super::super::{Format, List, SpamdConf};

#[test]
fn a_list_is_read_as_spamd_setup_reads_it() {
    let text = "# a list\n  192.0.2.7\n198.51.100.0/24 China\n10/8\n203.0.113.8 - 203.0.113.11\n203.0.113.20-203.0.113.21 two\n\
                203.0.113.30 203.0.113.31\n203.0.113.40 - a remark\n203.0.113.41 ; one\n2001:db8::/32\n\n";
    assert_eq!(
        prefixes(Format::Spamd, text),
        "10.0.0.0/8 192.0.2.7/32 198.51.100.0/24 203.0.113.8/30 203.0.113.20/31 203.0.113.30/31 203.0.113.40/32 \
         203.0.113.41/32 2001:db8::/32"
    );
    for line in [
        "192.0.2",
        "192.0.2.7x",
        "192.0.2.256",
        "192.0.2.0/33",
        "192.0.2.9 - 192.0.2.8",
        "192.0.2.7 5 hits",
        "192.0.2.0/24 - 192.0.3.0",
        "- 192.0.2.7",
        "nonsense",
        "nonsense;",
    ] {
        let told = read(Format::Spamd, &format!("10.0.0.1\n{line}\n"));
        match line {
            // A list of that name is taken away, whether there is one or not.
            "nonsense;" => assert!(told.is_ok()),
            _ => {
                let told = told.unwrap_err();
                assert!(told.starts_with("list:2: ") && told.contains("write 192.0.2.7"), "{line}: {told}");
            }
        }
    }
    assert!(read(Format::Spamd, "192.0.2.1/24\n").unwrap_err().contains("write 192.0.2.0/24 for the network"));
}

#[test]
fn lines_for_the_socket_replace_and_remove_lists() {
    let text = "nixspam;\"Your address %A; see \\\"x\\\"\\n\";inet;2;192.0.2.0/24;198.51.100.7/32\n\
                old;\"old\";203.0.113.1/32;203.0.113.2/32;\n\
                gone;\"gone\";inet;1;203.0.113.99/32\ngone;\n\
                six;\"six\";inet6;1;2001:db8::/32\n\
                nixspam;\"newer\";inet;1;198.51.100.7/32\n";
    assert_eq!(prefixes(Format::Spamd, text), "198.51.100.7/32 203.0.113.1/32 203.0.113.2/32 2001:db8::/32");
    for (line, part) in [
        ("tag;no quotes;192.0.2.0/24", "a message in double quotes, and a semicolon"),
        ("tag;\"no end;192.0.2.0/24", "a message in double quotes"),
        ("tag;\"m\";inet;3;192.0.2.0/24", "says that it has '3' addresses, and has 1: make it again"),
        ("tag;\"m\";inet;1;2001:db8::/32", "another family behind inet"),
        ("tag;\"m\";192.0.2.1/24", "write 192.0.2.0/24 for the network"),
    ] {
        let told = read(Format::Spamd, &format!("{line}\n")).unwrap_err();
        assert!(told.starts_with("list:1: ") && told.contains(part), "{told}");
    }
}

const CONF: &str = r#"# spamd.conf
all:\
    :one:override:two:

one:\
    :black:\
    :msg="Your address %A: see https://example.com/\n\
    for details":\
    :method=file:\
    :file=/lists/one

override:\
    :white:\
    :method=file:\
    :file=/lists/white:
two:\
    :black:\
    :msg=/etc/message:\
    :file=/lists/two\Cb:
unused:\
    :black:method=http:file=example.com/list.gz:
"#;

fn lists(conf: &str) -> Result<List, String> {
    let conf = SpamdConf::read(conf).map_err(|bad| bad.told("spamd.conf"))?;
    conf.lists(&mut |file| match file {
        "/lists/one" => Ok("192.0.2.0/30\n".to_owned()),
        "/lists/white" => Ok("192.0.2.1 192.0.2.2\n".to_owned()),
        "/lists/two:b" => Ok("192.0.2.2\n".to_owned()),
        "/lists/bad" => Ok("192.0.2.2\nfoo\n".to_owned()),
        other => Err(format!("cannot read {other}")),
    })
}

#[test]
fn a_configuration_denies_each_black_list_less_the_white_ones_behind_it() {
    assert!(SpamdConf::is_meant(CONF));
    let read = lists(CONF).unwrap();
    let nets: Vec<String> = read.prefixes.iter().map(ToString::to_string).collect();
    // What the first list does not deny any more is on the second.
    assert_eq!(nets, ["192.0.2.0/32", "192.0.2.2/32", "192.0.2.3/32"]);
    assert_eq!(read.exclusions, 1);
    for (from, to, part) in [
        ("all:", "most:", "spamd.conf:1: there is no record 'all'"),
        (":one:override:two:", ":one:three:", "spamd.conf:2: 'all' names 'three', and there is no such list"),
        (":one:override:two:", ":override:one:", "'override' is white, and no black list stands before it"),
        (":one:override:two:", ":", "spamd.conf:2: 'all' names no list"),
        (
            ":one:override:two:",
            ":unused:",
            "spamd.conf:20: list 'unused' comes by http, and nothing is fetched from here",
        ),
        (":file=/lists/one", ":nothing:", "spamd.conf:5: list 'one' has no file"),
        (":white:", ":grey:", "list 'override' is neither black nor white"),
        ("/lists/one", "/lists/bad", "/lists/bad:2: 'foo': write 192.0.2.7"),
        ("/lists/one", "/lists/nowhere", "cannot read /lists/nowhere"),
        (":method=file:", ":method=exec:", "comes from a program, and none is run from here"),
    ] {
        let told = lists(&CONF.replacen(from, to, 1)).unwrap_err();
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(read_as_list(CONF).contains("this is spamd.conf, which names lists and has none"));
    for list in ["192.0.2.1\n", "tag;\"m\";192.0.2.1/32\n", "2001:db8::\n", "::1\n", "beef::1\n", ""] {
        assert!(!SpamdConf::is_meant(list), "{list}");
    }
}

fn read_as_list(text: &str) -> String {
    read(Format::Spamd, text).unwrap_err()
}
