use super::*;

/// What the processor of clusterctl 1.14.2 makes of texts, with the values below: for each line its text and `= ` with the
/// result, `error: ` with its message, or `panic`. Made by a program of a few lines that gives each text to
/// `yamlprocessor.NewSimpleProcessor().Process` of the Go module `sigs.k8s.io/cluster-api`.
const VECTORS: &str = include_str!("../../../tests/clusterctl/variables.jsonl");

/// A value that is the same in both.
fn value(name: &str) -> Option<String> {
    let values = [
        ("A", "alpha"),
        ("EMPTY", ""),
        ("V", "v1.37.1"),
        ("IP", "10.0.0.1"),
        ("P", "a/b/c.tar.gz"),
        ("MIX", "aBc"),
        ("U", "äöß"),
        ("X_1", "x1"),
        ("D", "$$"),
        ("lower", "low"),
    ];
    values.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
}

#[track_caller]
fn refusal(text: &str) -> String {
    substitute(text, value).expect_err("it is refused").to_string()
}

#[test]
fn texts_become_what_clusterctl_makes_of_them() {
    let mut compared = 0;
    for line in VECTORS.lines() {
        let [text, expected]: [String; 2] = serde_json::from_str(line).expect("a text and a result");
        let found = substitute(&text, value);
        let missing =
            expected.strip_prefix("error: value for variables [").and_then(|rest| rest.split_once(']'));
        match (&found, expected.strip_prefix("= "), missing) {
            // A part of a character.
            (Err(Error::Refused { .. }), Some(result), _) if result.contains('\u{fffd}') => {}
            (Ok(found), Some(result), _) => assert_eq!(found, result, "{text:?}"),
            (Err(Error::Missing(found)), None, Some((names, _))) => {
                let mut found: Vec<&str> = found.iter().map(|missing| missing.name.as_str()).collect();
                found.sort_unstable();
                assert_eq!(found.join(", "), names, "{text:?}");
            }
            (Err(Error::Refused { .. }), None, None) => {}
            _ => panic!("{text:?}: {found:?}, not {expected}"),
        }
        compared += 1;
    }
    assert!(compared > 100);
}

#[test]
fn all_variables_without_a_value_are_named_with_their_first_line() {
    let text = "a: ${ONE}\n# ${TWO}\nb: [${ONE}, ${THREE:=3},\n  ${FOUR}]\nc: ${FIVE:-${SIX}}\n";
    let found = substitute(text, |_| None).expect_err("they are missed");
    let at = |line, name: &str| Missing { line, name: name.to_owned() };
    assert_eq!(found, Error::Missing(vec![at(1, "ONE"), at(2, "TWO"), at(4, "FOUR")]));
    assert_eq!(
        found.to_string(),
        "no value and no default for variables ONE (line 1), TWO (line 2), FOUR (line 4): set them in the environment, \
         or write a default, ${NAME:=default}"
    );
    assert_eq!(
        refusal("${Z}"),
        "no value and no default for variable Z (line 1): set it in the environment, or write a default, ${NAME:=default}"
    );
}

#[test]
fn a_refusal_names_the_line_and_what_to_write_and_shows_no_default() {
    assert_eq!(
        refusal("a: ${A}\nb: ${PASSWORD-hunter2}\n"),
        "line 2: clusterctl cannot read `${PASSWORD`: expected `}` behind the name; write `${NAME:-default}` for a default, \
         `$${` where the text itself is meant"
    );
    assert_eq!(
        refusal("x\n\n  ${#list[@]}"),
        "line 3: clusterctl cannot read `${`: its function lacks an argument or its end `}`; write `$${` where the text \
         itself is meant"
    );
    assert_eq!(
        refusal("${}"),
        "line 1: clusterctl cannot read `${`: a name of letters, digits and `_` has to follow; write `$${` where the text \
         itself is meant"
    );
    assert_eq!(
        refusal("${A:0:-1}"),
        "line 1: clusterctl cannot read `${A`: its positions are outside of the value; write positions from 0 and a length"
    );
    assert_eq!(
        refusal("a\n\0"),
        "line 2: clusterctl cannot read the rest of the text: a NUL character is in front of it; remove that"
    );
    let deep = format!("{}x{}", "${A:-".repeat(5000), "}".repeat(5000));
    assert!(refusal(&deep).ends_with("its defaults are nested too deep; write a value instead"));
}

#[test]
fn references_are_found_with_their_exact_text() {
    let text = "a: ${A}${B:=x}, $${C} $$${D:-${E:-{}}} ${F-x} ${#g[@]} $(H) ${ I } ${J";
    let found: Vec<_> = references(text).map(|reference| (reference.name, reference.text)).collect();
    assert_eq!(found, [("A", "${A}"), ("B", "${B:=x}"), ("D", "${D:-${E:-{}}"), ("I", "${ I }")],);
    for reference in references(text) {
        assert_eq!(&text[reference.range], reference.text);
    }
    assert!(has_reference("x${A}"));
    for text in ["", "$A $(A) {A}", "$${A}", "${A", "${A-}", "$$$${A}"] {
        assert!(!has_reference(text), "{text}");
    }
    assert!(!format!("{:?}", references("${P:=hunter2}").next()).contains("hunter2"));
}

#[test]
fn escaped_text_comes_out_as_it_is() {
    for text in ["", "plain", "$", "$$", "${A}", "$${A}", "a$b$(c)${d-e}$", "p$$$${x}"] {
        assert_eq!(substitute(&escape(text), value).as_deref(), Ok(text));
    }
}
