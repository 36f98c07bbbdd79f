//! Writes every page in both languages, for a smartphone and two ages of handsets, to a folder, to be looked at: `cargo run --example pages -- DIR`.

use std::path::PathBuf;
use std::time::Duration;

use sekisho::carrier::{Charset, Markup};
use sekisho::clock::{Day, Timestamp};
use sekisho::config::{ClientAddressDetail, NoticeConfig};
use sekisho::pages::{
    DataAct, DataDone, Language, Me, MeBinding, MeDone, MeSession, MyData, News, NewsKind, NoticeDocument, NoticeFacts,
    NoticeNews, NoticePage, NoticeRevision, Page, PinState, ReadField, Reader, render,
};
use sekisho::refusal::Reason;

#[path = "../src/pages/samples.rs"]
mod samples;

fn main() -> std::io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: pages DIR");
        std::process::exit(2);
    };
    std::fs::create_dir_all(&folder)?;
    let mut result = Ok(());
    samples::each_page(&mut |name, page| {
        for language in [Language::Japanese, Language::English] {
            for (charset, markup, posts, suffix) in [
                (Charset::Utf8, Markup::Html, true, ""),
                (Charset::ShiftJis, Markup::XhtmlMobile, true, ".xhtml"),
                (Charset::ShiftJis, Markup::Chtml, false, ".chtml"),
            ] {
                let rendered = render(page, Reader { language, charset, markup, posts, json: false });
                println!("{:5} {name}.{}{suffix}", rendered.body.len(), language.tag());
                let file = folder.join(format!("{name}.{}{suffix}.html", language.tag()));
                if let Err(error) = std::fs::write(file, &rendered.body) {
                    result = Err(error);
                }
            }
        }
    });
    result
}
