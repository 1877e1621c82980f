//! The files as Postfix reads them.

use super::super::{Parameters, services};

fn value(main: &str, name: &str) -> Result<String, String> {
    Parameters::read(main, "main.cf", "mx.example.com").unwrap().value(name)
}

#[test]
fn logical_lines_go_on_over_comments_and_empty_lines() {
    let main =
        "  lost = yes\n  lost too\n# comment\na = 1\n# between\n\n  2,\n\t3\nb=\n c = no line of its own\nd = x # y\n";
    assert_eq!(value(main, "a").unwrap().split_whitespace().collect::<Vec<_>>(), ["1", "2,", "3"]);
    assert_eq!(value(main, "b").unwrap(), "c = no line of its own");
    assert_eq!(value(main, "d").unwrap(), "x # y");
    assert_eq!(value(main, "lost").unwrap(), "");
    let why = Parameters::read("a = 1\nnonsense\n", "main.cf", "x").unwrap_err();
    assert!(why.starts_with("main.cf:2: 'nonsense' is no name = value") && why.contains("postfix check"), "{why}");
}

#[test]
fn what_postfix_would_refuse_is_an_error_and_never_a_guess() {
    for text in ["$", "${", "${a", "$(a", "${a b}", "${a?{b}", "${a?{b}c}", "${{1} == {2}", "${{1} ~ {2}?{3}}", "$a$b$"]
    {
        assert!(value(&format!("x = {text}\n"), "x").is_err(), "{text}");
    }
    let why = value("a = $b\nb = $a\n", "a").unwrap_err();
    assert!(why.contains("without end"), "{why}");
    let doubled: String = (0..50).map(|n| format!("a{n} = $a{0}$a{0}\n", n + 1)).collect();
    assert!(value(&doubled, "a0").unwrap_err().contains("more than"), "2 to the 50th names");
}

#[test]
fn a_service_has_its_options_in_every_form() {
    let master = "# comment\nsmtp inet n - y - 1 postscreen\n  -o a=1 -o { b = 2, 3 }\n  -oc=4\n# more\n  -v\n\
                  [::1]:25 inet n - - - 1 postscreen\n";
    let all = services::read(master, "master.cf").unwrap();
    let options: Vec<_> = all[0].options.iter().map(|(name, value)| format!("{name}:{value}")).collect();
    assert_eq!(options, ["a:1", "b:2, 3", "c:4"]);
    assert_eq!((all[1].name.as_str(), all[1].is_private), ("[::1]:25", false));
    let why = services::read("smtp inet n\n", "master.cf").unwrap_err();
    assert!(why.starts_with("master.cf:1: a service has eight columns"), "{why}");
}
