//! What a handset shows: tiny pages in the language, charset and markup that its browser knows.
//!
//! [`Reader`] is what the browser can show, [`Page`] what there is to say, [`render`] brings them together.
//! The words live in `texts/*.toml`, one file a language, the markup in `templates/`: one source, written as XHTML Mobile
//! Profile, that CHTML and HTML are made from, so that it serves a handset of 1999 and a smartphone.
//! A page holds no script, no image, no table and nothing from elsewhere, and is at most 5 KiB long,
//! which the earliest handsets can hold.

mod catalogue;
mod notice;
mod page;
mod reader;
mod render;
mod style;

#[cfg(test)]
mod tests;

pub use notice::{NoticeDocument, NoticeFacts, NoticeSection, ReadField};
pub use page::{
    AGAIN_FIELD, BINDING_FIELD, CODE_FIELD, DataAct, DataDone, FORM_TOKEN_FIELD, LABEL_FIELD, Me, MeBinding, MeDone,
    MeSession, MyData, News, NewsKind, NoticeNews, NoticePage, NoticeRevision, OLD_PIN_FIELD, PIN_FIELD, Page,
    PinState, REMOVE_FIELD, SURE_FIELD, TO_FIELD,
};
pub use reader::{Language, Reader, ReaderHints};
pub use render::{Rendered, render};
pub use style::content_security_policy;
