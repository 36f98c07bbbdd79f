//! Whole pages: what changes in them, and that nothing else does.

use encoding_rs::{EUC_JP, Encoding, ISO_2022_JP, SHIFT_JIS, UTF_8};
use proptest::prelude::*;

use super::markup::Page;
use super::stream::Stream;
use super::testing::{TOKEN, plan};

/// The page, rewritten in pieces of `size` bytes, the token written `T`.
pub(super) fn raw(page: &[u8], said: Option<&'static Encoding>, docomo: bool, size: usize) -> Vec<u8> {
    rewrite(page, said, docomo, false, size)
}

fn rewrite(page: &[u8], said: Option<&'static Encoding>, docomo: bool, xml: bool, size: usize) -> Vec<u8> {
    let plan = plan(docomo.then_some(("guid", "ON")));
    let mut stream = Stream::new(Page::new(plan, said, xml), said);
    let mut out: Vec<u8> = page.chunks(size.max(1)).flat_map(|chunk| stream.push(chunk)).collect();
    out.extend(stream.finish());
    out
}

pub(super) fn rewritten(page: &str) -> String {
    let whole = raw(page.as_bytes(), Some(UTF_8), false, page.len());
    for size in [1, 2, 7] {
        assert_eq!(raw(page.as_bytes(), Some(UTF_8), false, size), whole, "by {size}: {page}");
    }
    assert_eq!(raw(&whole, Some(UTF_8), false, 64), whole, "a second pass changes nothing: {page}");
    String::from_utf8(whole).unwrap().replace(TOKEN, "T")
}

/// What a page's links become; `LEAVE` stands for a link to the leave page.
pub(super) fn check(table: &[(&str, &str)]) {
    let leave =
        regex::Regex::new(r"(http://admin\.example\.jp)?/_sekisho/leave\?s=[\w-]{32}&amp;u=[\w.~%/-]+").unwrap();
    for (page, expected) in table {
        let got = rewritten(page);
        assert_eq!(leave.replace_all(&got, "${1}LEAVE"), *expected, "{page}");
    }
}

#[test]
fn links_of_ours_get_the_token_in_their_authors_spelling() {
    check(&[
        ("<a href=\"/a\">", "<a href=\"/a?_sk=T\">"),
        ("<A  HREF = '/a?b=1&amp;c=2#d'\n x=y >", "<A  HREF = '/a?_sk=T&amp;b=1&amp;c=2#d'\n x=y >"),
        ("<a href=/a?b&c>", "<a href=/a?_sk=T&amp;b&c>"),
        ("<a href=/a/>", "<a href=/a/?_sk=T>"),
        ("<a href=\" a\n \">", "<a href=\" a?_sk=T\n \">"),
        ("<a href=\"?\">", "<a href=\"?_sk=T&amp;\">"),
        ("<a href=\"/a&#63;b&#x23;c\">", "<a href=\"/a&#63;_sk=T&amp;b&#x23;c\">"),
        ("<a href='/a?_sk=old'>", "<a href='/a?_sk=T'>"),
        ("<a href='/a?x&amp;_sk=old&amp;_s%6B=older'>", "<a href='/a?_sk=T&amp;x'>"),
        ("<a href='/a?_sk=old&amp;_sk=older&amp;x'>", "<a href='/a?_sk=T&amp;x'>"),
        ("<a href='/a?_s\tk=old&amp;x'>", "<a href='/a?_sk=T&amp;x'>"),
        ("<a href='/a?x&amp;_sk\u{1}\u{1}&amp;_sk=old'>", "<a href='/a?_sk=T&amp;x'>"),
        ("<a href='/a' href='/b'>", "<a href='/a?_sk=T' href='/b'>"),
        (
            "<area href=/a><frame src=/b><iframe src='/c'></iframe>",
            "<area href=/a?_sk=T><frame src=/b?_sk=T><iframe src='/c?_sk=T'></iframe>",
        ),
        ("<img src=a.gif><input type=image src=b.gif>", "<img src=a.gif?_sk=T><input type=image src=b.gif?_sk=T>"),
        (
            "<link rel='Stylesheet' href=a.css><link rel=next href=b>",
            "<link rel='Stylesheet' href=a.css?_sk=T><link rel=next href=b>",
        ),
        ("<card><go href=\"/a\" method=\"get\"/>", "<card><go href=\"/a?_sk=T\" method=\"get\"/>"),
        (
            "<meta http-equiv=Refresh content=\"5; URL='/a?b'\">",
            "<meta http-equiv=Refresh content=\"5; URL='/a?_sk=T&amp;b'\">",
        ),
        ("<meta http-equiv=refresh content=5>", "<meta http-equiv=refresh content=5>"),
        ("<noscript><a href=/a></noscript>", "<noscript><a href=/a?_sk=T></noscript>"),
        ("<noframes><a href=/a></noframes>", "<noframes><a href=/a?_sk=T></noframes>"),
        ("<a href=/_sekisho/me>", "<a href=/_sekisho/me?_sk=T>"),
        ("<svg><a xlink:href='/a'></a></svg>", "<svg><a xlink:href='/a?_sk=T'></a></svg>"),
        ("<a href=/a xlink:href=/b>", "<a href=/a?_sk=T xlink:href=/b?_sk=T>"),
    ]);
}

#[test]
fn what_is_no_link_of_ours_stays() {
    for page in [
        "<a href=#top>",
        "<a href>",
        "<a href=''>",
        "<a href='mailto:a@admin.example.jp'><a href=tel:03><a href='javascript:go(\"/a\")'>",
        "<a href='&sol;&sol;evil.example/'>",
        "<a href='http:evil.example'>",
        "<!-- <a href=/a> --><script>'<a href=/a>'</script><style><a href=/a></style><title><a href=/a></title>",
        "<textarea><a href=/a></textarea><xmp><a href=/a></xmp>",
        "<img src=http://evil.example/a.gif><link rel=stylesheet href=//evil.example/a.css>",
        "<form method=dialog>",
        "<a hrefx=/a><ab href=/a><input src=/a value=/a>",
        "<p>1 < 2 & 3 <a href=\"/unfinished",
        "plain text",
        "",
        "\u{feff}",
        "\u{feff}<p>",
    ] {
        assert_eq!(rewritten(page), page);
    }
}

#[test]
fn links_of_others_pass_the_leave_page() {
    check(&[
        ("<a href='http://evil.example/a?b=1&amp;c'>", "<a href='LEAVE'>"),
        ("<a href=//evil.example>", "<a href=LEAVE>"),
        ("<a href='&#47;&#47;evil.example/'>", "<a href='LEAVE'>"),
        ("<a href='/&#9;/evil.example/'>", "<a href='LEAVE'>"),
        ("<a href=\"/\\evil.example/\">", "<a href=\"LEAVE\">"),
        (
            "<meta http-equiv=refresh content='0;url=http://evil.example/'>",
            "<meta http-equiv=refresh content='0;url=LEAVE'>",
        ),
        ("<form method=post action=http://evil.example/>", "<form method=post action=LEAVE>"),
        ("<button formaction=http://evil.example/>", "<button formaction=LEAVE>"),
        ("<frame src=http://evil.example/>", "<frame src=LEAVE>"),
        ("<isindex action=http://evil.example/><isindex action=/a>", "<isindex action=LEAVE><isindex action=/a>"),
        ("<a xlink:href='http://evil.example/'>", "<a xlink:href='LEAVE'>"),
    ]);
    let form = rewritten("<form action='http://evil.example/?a=b'><input name=q>");
    assert!(form.starts_with("<form action='/_sekisho/leave'><input type=\"hidden\" name=\"s\" value=\""), "{form}");
    assert!(
        form.ends_with("<input type=\"hidden\" name=\"u\" value=\"http://evil.example/?a=b\"><input name=q>"),
        "{form}"
    );
    assert!(!form.contains("_sk"));
}

#[test]
fn no_tag_has_the_url_of_its_page_told_to_others() {
    check(&[
        (
            "<meta name=Referrer content=unsafe-url><meta name=referrer content='always'><meta name=referrer content=never>",
            "<meta name=Referrer content=same-origin><meta name=referrer content='same-origin'><meta name=referrer content=never>",
        ),
        (
            "<img src=http://evil.example/ referrerpolicy=unsafe-url><img srcset=//evil.example/ referrerPolicy='&#117;nsafe-url'>",
            "<img src=http://evil.example/ referrerpolicy=same-origin><img srcset=//evil.example/ referrerPolicy='same-origin'>",
        ),
        (
            "<script referrerpolicy=\"no-referrer-when-downgrade\" src=//evil.example/></script><img referrerpolicy=no-referrer>",
            "<script referrerpolicy=\"same-origin\" src=//evil.example/></script><img referrerpolicy=no-referrer>",
        ),
        (
            "<a href=/a ping='http://evil.example/ /b'><a ping=//evil.example href=/a><area href=/a ping=''>",
            "<a href=/a?_sk=T ping=''><a ping=\"\" href=/a?_sk=T><area href=/a?_sk=T ping=''>",
        ),
    ]);
}

fn in_xml(page: &str, size: usize) -> String {
    let out = rewrite(page.as_bytes(), Some(UTF_8), false, true, size);
    String::from_utf8(out).unwrap().replace(TOKEN, "T")
}

#[test]
fn what_is_put_into_xml_is_xml() {
    let page = "<form action=\"/a\"><input type=\"hidden\" name=\"_sk\" value=\"T\" />";
    assert_eq!(in_xml("<form action=\"/a\">", 100), page);
}

#[test]
fn what_wml_follows_by_itself_gets_the_token() {
    for (page, expected) in [
        (
            "<card ontimer=\"/a\" onenterforward=\"#b\"><option onpick=\"/b?c\" value=\"/d\">",
            "<card ontimer=\"/a?_sk=T\" onenterforward=\"#b\"><option onpick=\"/b?_sk=T&amp;c\" value=\"/d\">",
        ),
        ("<template onenterbackward=\"a\"/>", "<template onenterbackward=\"a?_sk=T\"/>"),
    ] {
        assert_eq!(in_xml(page, 3), expected);
        assert_eq!(rewritten(page), page, "not in HTML");
    }
    assert!(in_xml("<card ontimer=\"http://evil.example/\">", 9).starts_with("<card ontimer=\"/_sekisho/leave?s="));
}

#[test]
fn elements_that_are_empty_in_xml_swallow_nothing_and_character_data_stays() {
    for (page, expected) in [
        ("<title/><a href=\"/a\">", "<title/><a href=\"/a?_sk=T\">"),
        (
            "<script type=\"x\" src=\"a.js\" /><a href=\"/a\">",
            "<script type=\"x\" src=\"a.js?_sk=T\" /><a href=\"/a?_sk=T\">",
        ),
        ("<textarea name=\"/>\"/><style/><a href=\"/a\">", "<textarea name=\"/>\"/><style/><a href=\"/a?_sk=T\">"),
        (
            "<script>'<a href=\"/a\">'</script><a href=\"/b\">",
            "<script>'<a href=\"/a\">'</script><a href=\"/b?_sk=T\">",
        ),
        ("<![CDATA[ > <a href=\"/a\"> ]]><a href=\"/b\">", "<![CDATA[ > <a href=\"/a\"> ]]><a href=\"/b?_sk=T\">"),
        (
            "<script>//<![CDATA[\n if (1 > 0) x = '<a href=\"/a\">';\n//]]></script><a href=\"/b\">",
            "<script>//<![CDATA[\n if (1 > 0) x = '<a href=\"/a\">';\n//]]></script><a href=\"/b?_sk=T\">",
        ),
        (
            "<svg><title><![CDATA[<a href=\"/a\">]]></title><a xlink:href=\"/b\"/></svg>",
            "<svg><title><![CDATA[<a href=\"/a\">]]></title><a xlink:href=\"/b?_sk=T\"/></svg>",
        ),
    ] {
        for size in [1, 2, 7, 500] {
            assert_eq!(in_xml(page, size), expected, "by {size}");
        }
    }
    // HTML knows neither.
    assert_eq!(rewritten("<title/><a href=/a>"), "<title/><a href=/a>");
}

#[test]
fn what_a_link_of_others_asks_for_is_sent_in_the_pages_charset() {
    for (said, page) in [
        (Some(SHIFT_JIS), &b"<a href='http://other.example/?q=\x95\x5C'>"[..]),
        (None, b"<a href='http://other.example/?q=\x95\x5C'>"),
        (None, b"<meta charset=shift_jis><a href='http://other.example/?q=&#x8868;'>"),
    ] {
        let page = String::from_utf8(raw(page, said, false, 9)).unwrap();
        assert!(page.ends_with("&amp;u=http%3A//other.example/%3Fq%3D%2595%5C'>"), "{page}");
    }
}

#[test]
fn a_base_never_moves_a_token_to_another_site() {
    check(&[
        // Followed: what is relative is another site's, and the leave page is named in full.
        (
            "<base href=http://evil.example/><a href=/a><form method=post></form><a href=http://admin.example.jp/b>",
            "<base href=http://evil.example/><a href=http://admin.example.jpLEAVE><form method=post></form><a href=http://admin.example.jp/b?_sk=T>",
        ),
        // Too late, or second: emptied.
        ("<a href=/a><base href='http://evil.example/'><a href=b>", "<a href=/a?_sk=T><base href=''><a href=b?_sk=T>"),
        ("<form><base href=//evil.example>", "<form><input type=\"hidden\" name=\"_sk\" value=\"T\"><base href=\"\">"),
        (
            "<base href=/x/><base href=http://evil.example/><a href=a>",
            "<base href=/x/><base href=\"\"><a href=a?_sk=T>",
        ),
        (
            "<noscript><base href=/x/></noscript><base href=http://evil.example/>",
            "<noscript><base href=/x/></noscript><base href=\"\">",
        ),
        ("<base href='&sol;&sol;evil.example/'><a href=a>", "<base href=''><a href=a?_sk=T>"),
        ("<base href='data:,x'><a href=a>", "<base href=''><a href=a?_sk=T>"),
        ("<base target=_top><base href=''><a href=a>", "<base target=_top><base href=''><a href=a?_sk=T>"),
    ]);
}

/// Text, markup and bytes that are hard on a reader, in each charset.
const HARD: [(&[u8], Option<&Encoding>); 8] = [
    // 表 and ソ end in 0x5C; half-width kana; docomo's, au's and SoftBank's emoji.
    (b"<p title=\"\x95\x5C\x83\x5C\">\xB1\xB2\xF8\x9F\xF3\x40\xF9\x41</p><a title=\x83\x5C href=\"/\x95\x5C?q=\xF8\x9F\">", Some(SHIFT_JIS)),
    (b"<p>\x1B$Gj<img/src=x>\x0F\x1B$E\"\x0F</p><a href=\"/x\">", Some(SHIFT_JIS)),
    (b"<p>\xC9\xBD\x8E\xB1\x8F\xB0\xA1</p><a href='/\xC9\xBD'>", Some(EUC_JP)),
    ("<p>表ｱ😀</p><a href='/表?q=ソ'>".as_bytes(), Some(UTF_8)),
    (b"<p>\x1B$B<img/src=x>\"\x1B(B</p><a href='/\x1B$BI=\x1B(B'>", Some(ISO_2022_JP)),
    (b"<a href='/?\x1B(J\x1B$BI=\x1B(B'>", Some(ISO_2022_JP)),
    (b"<a href='/?\x1B(Bx'><a href='/\x1B(B/evil.example/'>", Some(UTF_8)),
    (b"<meta charset=iso-2022-jp><p>\x1B$B<img/src=x>\"\x1B(B</p><a href='/x'>", None),
];

#[test]
fn every_other_byte_stays_in_every_charset() {
    for (page, said) in HARD {
        let whole = raw(page, said, false, page.len());
        let token = format!("_sk={TOKEN}");
        let text = String::from_utf8_lossy(&whole).into_owned();
        assert_eq!(text.matches(&token).count(), 1, "{text}");
        for size in 1..8 {
            assert_eq!(raw(page, said, false, size), whole, "by {size}: {text}");
        }
        assert_eq!(raw(&whole, said, false, 5), whole);
        assert_eq!(stripped(&whole), page, "{text}");
    }
}

/// The page without what was put in.
fn stripped(page: &[u8]) -> Vec<u8> {
    let token = regex::bytes::Regex::new(&format!(
        r#"(?-u)\?_sk={TOKEN}(&amp;)?|<input type="hidden" name="_sk" value="{TOKEN}"(?: form="f")?(?: /)?>"#
    ))
    .unwrap();
    let put =
        |captures: &regex::bytes::Captures<'_>| if captures.get(1).is_some() { b"?".to_vec() } else { Vec::new() };
    token.replace_all(page, put).into_owned()
}

#[test]
fn bytes_that_swallow_what_follows_get_no_token_behind_them() {
    for page in [&b"<a href=\"/x\x81\">"[..], b"<a href=\"/x\x81?q\">", b"<a href='/\x95'>"] {
        for said in [Some(SHIFT_JIS), None] {
            assert_eq!(raw(page, said, false, 3), page);
        }
    }
    let inside = raw(b"<a href=\"/x?q=\x81\"><img alt=\"\x81\"><a href=/y>", Some(SHIFT_JIS), false, 100);
    let expected = format!("<a href=\"/x?_sk={TOKEN}&amp;q=");
    assert!(inside.starts_with(expected.as_bytes()));
}

#[test]
fn no_escape_goes_with_a_token_that_is_replaced() {
    let page = b"<a href='/?_sk=\x1B$BI=&amp;x'>\x1B(B<a href='/?_sk=\x1B(Bx'>";
    assert_eq!(raw(page, Some(ISO_2022_JP), false, 4), page);
}

#[test]
fn a_value_that_is_replaced_takes_no_half_of_a_run_along() {
    let page = b"<base href=\"\"><form><base href=//evil.example/\x1B$B <base href=//evil.example>\x1B(B><p>";
    let once = raw(page, None, false, 9);
    assert_eq!(raw(&once, None, false, 5), once);
    assert!(once.ends_with(b"<base href=\"\"><p>"), "{}", String::from_utf8_lossy(&once));
}

#[test]
fn a_page_in_utf_16_is_rewritten_whole() {
    let page = "\u{feff}<p>表</p><a href=\"/a\">";
    for (name, bytes) in [("le", u16::to_le_bytes as fn(u16) -> [u8; 2]), ("be", u16::to_be_bytes)] {
        let wide = |text: &str| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        let expected = page.replace("/a", &format!("/a?_sk={TOKEN}"));
        assert_eq!(raw(&wide(page), None, false, 1), wide(&expected), "{name}");
        let broken = [wide(page), vec![0x41]].concat();
        assert_eq!(raw(&broken, None, false, 3), broken, "{name}");
        let large = wide(&format!("{page}{}", "x".repeat(600_000)));
        assert_eq!(raw(&large, None, false, 60_000), large, "{name}");
    }
}

#[test]
fn a_page_that_is_too_much_passes_as_it_is() {
    let long = "x".repeat(10_000_000);
    let deep = "<div>".repeat(1_000_000);
    for page in [
        format!("<a href=/a><p title=\"{long}\"><a href=/b>"),
        format!("<a href=/a><a href=\"{long}\"><a href=/b>"),
        format!("<a href=/a><a {}><a href=/b>", "x ".repeat(5_000_000)),
        format!("<a href=/a>{deep}<a href=/b>"),
        format!("<a href=/a><!--{long}--><a href=/b>"),
    ] {
        let got = raw(page.as_bytes(), Some(UTF_8), false, 16 * 1024);
        assert!(got.starts_with(format!("<a href=/a?_sk={TOKEN}>").as_bytes()), "what came before has it");
        assert_eq!(stripped(&got), page.as_bytes());
    }
}

#[test]
fn a_page_that_was_given_up_is_not_held() {
    let mut stream = Stream::new(Page::new(plan(None), None, false), None);
    let tag = format!("<a title=\"{}", "x".repeat(300_000));
    assert_eq!(stream.push(tag.as_bytes()).len(), tag.len(), "more than the parser may hold");
    assert_eq!(stream.push(b"y\"><a href=/a>"), b"y\"><a href=/a>");
}

#[test]
fn the_first_bytes_do_not_wait() {
    let mut stream = Stream::new(Page::new(plan(None), None, false), None);
    assert_eq!(stream.push(b"<html><a href=/a>text<a hr"), format!("<html><a href=/a?_sk={TOKEN}>text").into_bytes());
    assert_eq!(stream.push(b"ef=/b>"), format!("<a href=/b?_sk={TOKEN}>").into_bytes());
}

/// Pages of pieces that matter, in any order, broken ones among them.
fn pages() -> impl Strategy<Value = Vec<u8>> {
    let pieces: &[&[u8]] = &[
        b"<a href=\"/a\">",
        b"<a href='/\x95\x5C?x&amp;y#z'>",
        b"<a href=/a?>",
        b"<form>",
        b"<form method=post action=b>",
        b"<form id=f method=post action=b>",
        b"<form action=tel:1>",
        b"</form>",
        b"<button formmethod=get>",
        b"<button form=f formmethod=get>",
        b"<img src=a>",
        b"<meta http-equiv=refresh content='1;url=a'>",
        b"<meta charset=euc-jp>",
        b"<!--",
        b"-->",
        b"<script>",
        b"</script>",
        b"<noscript>",
        b"</noscript>",
        b"<title/>",
        b"<script src='/>'",
        b"<![CDATA[",
        b"]]>",
        b"/>",
        b"<",
        b">",
        b"\"",
        b"'",
        b"=",
        b" ",
        b"&amp",
        b"\x81",
        b"\x1B$B",
        b"\x1B$G",
        b"\x1B(B",
        b"\x0F",
        b"\xE8\xA1\xA8",
        b"href=/q",
        b"<a ",
        b"\xF8\x9F",
    ];
    proptest::collection::vec(proptest::sample::select(pieces), 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn rewriting_is_the_same_however_it_is_cut_and_twice_and_undone(
        page in pages(), size in 1_usize..12, which in 0_usize..5, xml in proptest::bool::ANY,
    ) {
        let said = [None, Some(UTF_8), Some(SHIFT_JIS), Some(EUC_JP), Some(ISO_2022_JP)][which];
        let whole = rewrite(&page, said, false, xml, page.len());
        prop_assert_eq!(&rewrite(&page, said, false, xml, size), &whole);
        prop_assert_eq!(&rewrite(&whole, said, false, xml, size), &whole);
        // The action that a form without one gets is the one thing that stripping leaves.
        prop_assert_eq!(stripped(&whole), page);
    }
}
