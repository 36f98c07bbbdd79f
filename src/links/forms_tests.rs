//! Forms in whole pages: where the token stands, and where it must not.

use encoding_rs::UTF_8;
use proptest::prelude::*;

use super::markup::Page;
use super::stream::Stream;
use super::testing::{TOKEN, plan};
use super::tests::{check, raw, rewritten};

#[test]
fn forms_that_get_have_fields_and_forms_that_post_have_a_query() {
    let hidden = "<input type=\"hidden\" name=\"_sk\" value=\"T\">";
    let fields = [
        ("<form>", "<form>H"),
        ("<form action=/a?b=1 method=get><input name=c>", "<form action=/a?b=1 method=get>H<input name=c>"),
        ("<form action='#x'>", "<form action='#x'>"),
        ("<form action=/a><input type=hidden name=_sk value=old><input name=c>", "<form action=/a>H<input name=c>"),
        ("<<input name=_sk><input name='_Sk'>img src=/x>", "< img src=/x>"),
        ("<form method=POST action=/a?b=1><input name=c>", "<form method=POST action=/a?_sk=T&amp;b=1><input name=c>"),
        ("<form method=post>", "<form action=\"/dir/page?_sk=T&amp;q=1\" method=post>"),
        ("<form method=post action=''>", "<form method=post action='/dir/page?_sk=T&amp;q=1'>"),
        ("<form action=mailto:a@b.example>", "<form action=mailto:a@b.example>"),
        (
            "<form method=post action=/a><button formaction=/b>",
            "<form method=post action=/a?_sk=T><button formaction=/b?_sk=T>",
        ),
        // The fields of the form go where its buttons send them.
        ("<form action=/a><input type=submit formaction=/b>", "<form action=/a>H<input type=submit formaction=/b>"),
        // Where they may not go, the button sends them to the page itself.
        (
            "<form action=/a><button formaction=mailto:a@b.example></button><input type=submit formaction='http:x'>",
            "<form action=/a>H<button formaction=\"\"></button><input type=submit formaction=''>",
        ),
        (
            "<form action=/a><button formaction='//admin.example.jp:8080/'>",
            "<form action=/a>H<button formaction='LEAVE'>",
        ),
        // A button that gets drops the query of a form that posts; others of that form keep theirs.
        (
            "<form method=post action=/a><input name=c><button formmethod=GET><input name=_sk><button>",
            "<form method=post action=/a?_sk=T><input name=c>H<button formmethod=GET><button>",
        ),
        (
            "<form method=post action=/a><input type=submit formmethod=get><button formmethod=get formaction=/b>",
            "<form method=post action=/a?_sk=T>H<input type=submit formmethod=get>\
             <button formmethod=get formaction=/b?_sk=T>",
        ),
        (
            "<form method=post enctype=multipart/form-data><button formmethod=get formaction=tel:1>",
            "<form action=\"/dir/page?_sk=T&amp;q=1\" method=post enctype=multipart/form-data>\
             H<button formmethod=get formaction=\"\">",
        ),
        (
            "<form method=post action=mailto:a@b.example><button formmethod=get>",
            "<form method=post action=mailto:a@b.example><button formmethod=get>",
        ),
        (
            "<form method=post action=tel:1></form><form><button formmethod=get>",
            "<form method=post action=tel:1></form><form>H<button formmethod=get>",
        ),
        (
            "<form method=post action=/a><<button formmethod=get>",
            "<form method=post action=/a?_sk=T><<button formmethod=get>",
        ),
        // It may name its form, from behind it, from before it, and from within another one.
        (
            "<form id=f method=post action=/a></form><button form=f formmethod=get><input type=submit form=f formmethod=get>",
            "<form id=f method=post action=/a?_sk=T></form>N<button form=f formmethod=get>\
             <input type=submit form=f formmethod=get>",
        ),
        (
            "<button form='f' formmethod=get><form method=post action=/a id=f><button form=f formmethod=get>",
            "<button form='f' formmethod=get><form method=post action=/a?_sk=T id=f>H<button form=f formmethod=get>",
        ),
        (
            "<form id=f method=post action=/a><button formmethod=get></form><button form=f formmethod=get>",
            "<form id=f method=post action=/a?_sk=T>H<button formmethod=get></form><button form=f formmethod=get>",
        ),
        (
            "<form id=f method=post action=/a><button form=f formmethod=get><button formmethod=get>",
            "<form id=f method=post action=/a?_sk=T>N<button form=f formmethod=get><button formmethod=get>",
        ),
        (
            "<form id=f method=post action=/a></form><form method=post action=/b><button form=f formmethod=get>\
             <button formmethod=get>",
            "<form id=f method=post action=/a?_sk=T></form><form method=post action=/b?_sk=T>N\
             <button form=f formmethod=get>H<button formmethod=get>",
        ),
        // One that is named may have the token in a field.
        (
            "<form id=f action=/a></form><form method=post action=/b></form><button form=f formaction=tel:1>\
             <button form=g formaction='mailto:a@b.example'>",
            "<form id=f action=/a>H</form><form method=post action=/b?_sk=T></form><button form=f formaction=\"\">\
             <button form=g formaction=''>",
        ),
    ]
    .map(|(page, expected)| {
        let named = hidden.replace('>', " form=\"f\">");
        (page, expected.replace('H', hidden).replace('N', &named))
    });
    check(&fields.each_ref().map(|(page, expected)| (*page, expected.as_str())));
    let docomo = raw(b"<form action=/a><input type=hidden name=guid value=ON><a href='/b?guid=ON'>", None, true, 9);
    assert_eq!(
        String::from_utf8(docomo).unwrap().replace(TOKEN, "T"),
        format!(
            "<form action=/a>{hidden}<input type=\"hidden\" name=\"guid\" value=\"ON\"><a href='/b?guid=ON&amp;_sk=T'>"
        )
    );
}

#[test]
fn no_field_stands_in_a_form_that_leads_where_no_token_belongs() {
    let hidden = "<input type=\"hidden\" name=\"_sk\" value=\"T\">";
    let table = [
        // To a browser of today the second form begins nowhere.
        ("<form action='mailto:a@b.example'><form action=/a>", "<form action='mailto:a@b.example'><form action=/a>"),
        (
            "<form action=ftp://evil.example/><table><form method=post action=/a><button formmethod=get>",
            "<form action=ftp://evil.example/><table><form method=post action=/a?_sk=T><button formmethod=get>",
        ),
        (
            "<form method=post action=tel:1><form><button formmethod=get>",
            "<form method=post action=tel:1><form><button formmethod=get>",
        ),
        // What looks like its end is none.
        (
            "<form action=tel:1><!-- </form> --><xform><param><title></form></title><form action=/a>",
            "<form action=tel:1><!-- </form> --><xform><param><title></form></title><form action=/a>",
        ),
        ("<form action=tel:1></FORM\n><form action=/a>", "<form action=tel:1></FORM\n><form action=/a>H"),
        // A field for a form outside would be one of this form to a browser that knows no `form`.
        (
            "<form id=f method=post action=/a></form><form action=tel:1><button form=f formmethod=get>",
            "<form id=f method=post action=/a?_sk=T></form><form action=tel:1><button form=f formmethod=get>",
        ),
        // Whose id it is, nobody can say.
        (
            "<form action=/b><form id=f method=post action=/a></form><form id=f action=tel:1></form>\
             <button form=f formmethod=get formaction=tel:1>",
            "<form action=/b>H<form id=f method=post action=/a?_sk=T></form><form id=f action=tel:1></form>\
             <button form=f formmethod=get formaction=\"\">",
        ),
    ]
    .map(|(page, expected)| (page, expected.replace('H', hidden)));
    check(&table.each_ref().map(|(page, expected)| (*page, expected.as_str())));
}

#[test]
fn a_form_within_one_of_another_site_is_the_same_after_a_second_pass() {
    for method in ["get", "post"] {
        let got = rewritten(&format!("<form method={method} action=//evil.example/><form action=/a>"));
        assert!(got.ends_with("<form action=/a><input type=\"hidden\" name=\"_sk\" value=\"T\">"), "{got}");
    }
}

#[test]
fn thousands_of_forms_are_no_page_too_large() {
    let page = "<form action=/a><input name=q></form>".repeat(20_000);
    let got = raw(page.as_bytes(), Some(UTF_8), false, 16 * 1024);
    assert_eq!(String::from_utf8(got).unwrap().matches(TOKEN).count(), 20_000);
}

#[test]
fn a_browser_that_drops_the_query_of_a_forms_url_gets_fields() {
    let hidden = format!("<input type=\"hidden\" name=\"_sk\" value=\"{TOKEN}\">");
    for (page, expected) in [
        ("<form method=post action=/a?b=1>", "<form method=post action=/a?b=1>H"),
        ("<form method=post><input name=_sk><input name=c>", "<form method=post>H<input name=c>"),
        (
            "<form method=post enctype=Multipart/Form-Data action=/a>",
            "<form method=post enctype=Multipart/Form-Data action=/a?_sk=T>",
        ),
        (
            "<form method=post action=/a><input type=submit formaction=/b>",
            "<form method=post action=/a>H<input type=submit formaction=/b>",
        ),
    ] {
        let plan = plan(None).in_fields_alone(true);
        let mut stream = Stream::new(Page::new(plan, Some(UTF_8), false), Some(UTF_8));
        let got = [stream.push(page.as_bytes()), stream.finish()].concat();
        assert_eq!(String::from_utf8(got).unwrap(), expected.replace('H', &hidden).replace('T', TOKEN), "{page}");
    }
    let mut stream = Stream::new(Page::new(plan(None).in_fields_alone(true), None, false), None);
    let off = String::from_utf8(stream.push(b"<form method=post action=http://evil.example/><i>")).unwrap();
    assert!(off.starts_with("<form method=post action=/_sekisho/leave><input type=\"hidden\" name=\"s\""), "{off}");
}

/// The page, rewritten in pieces for such a browser.
fn for_browser(page: &[u8], docomo: bool, drops_queries: bool, size: usize) -> Vec<u8> {
    let plan = plan(docomo.then_some(("guid", "ON"))).in_fields_alone(drops_queries);
    let mut stream = Stream::new(Page::new(plan, Some(UTF_8), false), Some(UTF_8));
    let mut out: Vec<u8> = page.chunks(size).flat_map(|piece| stream.push(piece)).collect();
    out.extend(stream.finish());
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn forms_and_their_fields_are_the_same_after_a_second_pass_and_however_they_are_cut(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "<form>", "<form action=/a>", "<form method=post>", "<form id=f method=post action=a>", "<form id=g action='?x'>",
            "<form id=f action=tel:1>", "<form action=//evil.example/>", "<form method=post action=//evil.example/>",
            "<form method=post enctype=text/plain>", "<form method=dialog>", "<form action=/_sekisho/leave>", "</form>",
            "<form method=post action=\"/a", "</fo", "rm>", "<base href=//evil.example/>", "<base href=/x/>",
            "<button>", "<button formmethod=get>", "<button form=f formmethod=get>", "<button form=g formmethod=get>",
            "<input form='f' type=submit formmethod=get formaction=mailto:a@b.example>", "<button formaction=/b>",
            "<button formaction=//evil.example/>", "<button form=h formaction=http:x>", "<input name=_sk>",
            "<input type=hidden name=guid value=x>", "<input name=q>", "<isindex action=/a>", "<", ">", "\"", "<!--", "-->",
            "<title>", "</title>", "<table>", "</table>", "<a href=/a>", "<img src=b referrerpolicy=unsafe-url>",
        ]), 0..20),
        docomo in any::<bool>(), drops_queries in any::<bool>(), size in 1_usize..9,
    ) {
        let page = pieces.concat();
        let once = for_browser(page.as_bytes(), docomo, drops_queries, 100_000);
        prop_assert_eq!(&for_browser(page.as_bytes(), docomo, drops_queries, size), &once);
        let again = for_browser(&once, docomo, drops_queries, size);
        prop_assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&once));
    }
}
