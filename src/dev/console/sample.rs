//! Invented data: a small hosting company's customer.

use super::screens::Language;

/// A text in both languages.
#[derive(Clone, Copy)]
pub(super) struct Text(&'static str, &'static str);

impl Text {
    /// In that language.
    pub(super) const fn of(self, language: Language) -> &'static str {
        match language {
            Language::English => self.0,
            Language::Japanese => self.1,
        }
    }
}

/// A web site.
pub(super) struct Site {
    pub(super) name: &'static str,
    pub(super) state: Text,
    /// Whether all is well.
    pub(super) well: bool,
    /// Megabytes in use.
    pub(super) megabytes: u32,
}

/// A mail account.
pub(super) struct Mailbox {
    pub(super) address: &'static str,
    pub(super) unread: u32,
    /// Tenths of the quota in use.
    pub(super) tenths: u8,
}

/// A day's visits.
pub(super) struct DayOfVisits {
    pub(super) day: Text,
    pub(super) visits: u32,
    /// Tenths of the busiest day.
    pub(super) tenths: u8,
}

/// A notice to customers.
pub(super) struct News {
    pub(super) day: &'static str,
    pub(super) text: Text,
}

pub(super) const SITES: [Site; 4] = [
    Site { name: "hoshizora-cafe.example", state: Text("running", "稼働中"), well: true, megabytes: 842 },
    Site { name: "shop.hoshizora-cafe.example", state: Text("running", "稼働中"), well: true, megabytes: 2310 },
    Site {
        name: "blog.hoshizora-cafe.example",
        state: Text("update waiting", "更新あり"),
        well: false,
        megabytes: 415,
    },
    Site { name: "yoyaku.hoshizora-cafe.example", state: Text("running", "稼働中"), well: true, megabytes: 96 },
];

pub(super) const MAILBOXES: [Mailbox; 5] = [
    Mailbox { address: "info@", unread: 12, tenths: 6 },
    Mailbox { address: "yoyaku@", unread: 3, tenths: 2 },
    Mailbox { address: "tencho@", unread: 0, tenths: 8 },
    Mailbox { address: "shop@", unread: 27, tenths: 5 },
    Mailbox { address: "saiyo@", unread: 1, tenths: 1 },
];

pub(super) const WEEK: [DayOfVisits; 7] = [
    DayOfVisits { day: Text("Mon", "月"), visits: 1204, tenths: 5 },
    DayOfVisits { day: Text("Tue", "火"), visits: 1187, tenths: 5 },
    DayOfVisits { day: Text("Wed", "水"), visits: 968, tenths: 4 },
    DayOfVisits { day: Text("Thu", "木"), visits: 1315, tenths: 6 },
    DayOfVisits { day: Text("Fri", "金"), visits: 1742, tenths: 8 },
    DayOfVisits { day: Text("Sat", "土"), visits: 2266, tenths: 10 },
    DayOfVisits { day: Text("Sun", "日"), visits: 2031, tenths: 9 },
];

pub(super) const NEWS: [News; 2] = [
    News {
        day: "11/28",
        text: Text("Maintenance 02:00-04:00, mail may be late.", "2時～4時 メンテナンス。メールの遅延があります。"),
    },
    News {
        day: "11/20",
        text: Text("Backups are now kept for 14 days.", "バックアップの保存期間が14日になりました。"),
    },
];
