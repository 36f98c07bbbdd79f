//! The offline tools at their edges; what they decide is in `ident_cases` and `user_agents`.

use serde_json::{Value, json};

use super::ident_cases::Gate;

const IDENTIFIED: &str = r#"{"remote_ip":"10.64.1.1","scheme":"http","method":"GET","target":"/","headers":[["Host","admin.example.jp"],["X-Device-Ref","canary-canary-canary-canary"],["x_imsi","440100000000000"],["X-Forwarded-For","192.0.2.1"]]}"#;

#[test]
fn a_bad_line_is_named_but_not_repeated_and_the_next_is_read() {
    let gate = Gate::of_the_file();
    let mut lines = Vec::new();
    for bad in [
        "",
        "canary",
        r#"{"remote_ip":"canary"}"#,
        r#"{"remote_ip":"10.64.1.1","scheme":"canary","method":"GET","target":"/","headers":[]}"#,
        r#"{"remote_ip":"10.64.1.1","scheme":"http","method":"GET","target":"/","headers":["canary"]}"#,
        &"canary".repeat(200_000),
    ] {
        lines.extend_from_slice(bad.as_bytes());
        lines.push(b'\n');
    }
    lines.extend_from_slice(b"\xff\xfe\r\n");
    lines.extend_from_slice(IDENTIFIED.as_bytes());
    let answers = gate.explain(&lines, None);
    let (last, errors) = answers.split_last().unwrap();
    assert_eq!(errors.len(), 7);
    let said = ["not JSON", "not JSON", "not a request", "scheme is", "not a request", "longer than", "not JSON"];
    for (answer, begin) in errors.iter().zip(said) {
        let error = answer["error"].as_str().unwrap();
        assert!(error.starts_with(begin), "{begin}: {errors:?}");
        assert!(!error.contains("canary") && answer.as_object().unwrap().len() == 1, "{answer}");
    }
    let must_not_forward = ["X-Device-Ref", "x_imsi"];
    assert_eq!(*last, json!({"outcome": "identified", "carrier": "private-apn", "must_not_forward": must_not_forward}));
}

#[test]
fn what_the_codec_would_not_accept_is_refused() {
    let gate = Gate::of_the_file();
    for (from, to) in [
        ("\"GET\"", "\"G ET\""),
        ("\"/\"", "\"/ /\""),
        ("x_imsi", "x imsi"),
        ("canary-canary", "canary\\u0000canary"),
        ("canary-canary", "canary\\r\\ncanary"),
    ] {
        let line = IDENTIFIED.replacen(from, to, 1);
        let answers = gate.explain(line.as_bytes(), Some(b"key"));
        assert_eq!(answers[0]["reason"], "malformed-request", "{line}");
        assert_eq!(answers[0]["must_not_forward"].as_array().map(Vec::len), Some(2), "{line}");
        assert_eq!(answers[0].get("fingerprint"), None);
    }
}

#[test]
fn user_agents_are_read_line_by_line_without_serials() {
    let lines =
        b"DoCoMo/2.0 P903i(c100;TB;W24H12;ser012345678901234;icc01234567890123456789)\r\n\n\xff/SN012345678901234";
    let mut output = Vec::new();
    sekisho::carrier::user_agent_lines(lines.as_slice(), &mut output).unwrap();
    let text = String::from_utf8(output).unwrap();
    let answers: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        answers,
        [
            json!({
                "carrier": "docomo", "kind": "handset", "model": "P903i", "generation": "foma", "browser": "1.0",
                "cookies": false, "redacted": "DoCoMo/2.0 P903i(c100;TB;W24H12)",
            }),
            json!({"carrier": "none", "kind": "other", "redacted": ""}),
            json!({"carrier": "none", "kind": "other", "redacted": "\u{fffd}"}),
        ]
    );
}

#[test]
fn the_bounds_of_a_head_are_those_of_a_listener() {
    let gate = Gate::of_the_file();
    let with = |target: usize, padding: usize| {
        let target = format!("\"/{}\"", "x".repeat(target));
        let padding = format!("[\"X-Padding\",\"{}\"],[\"X-Device-Ref\"", "x".repeat(padding));
        let line = IDENTIFIED.replacen("\"/\"", &target, 1).replacen("[\"X-Device-Ref\"", &padding, 1);
        let answer = gate.explain(line.as_bytes(), None).remove(0);
        answer["reason"].as_str().unwrap_or("identified").to_owned()
    };
    assert_eq!(with(8000, 20_000), "identified");
    assert_eq!(with(9000, 0), "url-too-long");
    assert_eq!(with(0, 33_000), "request-head-too-large");
}
