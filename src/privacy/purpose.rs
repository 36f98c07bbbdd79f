//! The purpose register: what every stored column, log field and metric label is there for, for how long, and on what ground.
//!
//! Start-up compares it with the columns that the store really has, the fields that log lines really have and the labels of
//! the metrics: a field without a purpose keeps the gateway from starting ([`without_purpose`]). The notice, the export of a
//! person's data and `policy show` are made of it, so that what people are told is what is done.

use std::collections::BTreeSet;

use super::periods::{Kept, Periods};
use super::tongue::{Text, Tongue};

/// On what ground something is kept. The articles are those of the Act on the Protection of Personal Information (APPI).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// Needed for what the person asked for, and told before it was read (articles 17, 18 and 21).
    Service,
    /// Needed to keep what is stored secure (article 23).
    Security,
    /// Needed to show that the law was kept (article 22 on erasure, 33 to 35 on requests).
    Evidence,
    /// Upkeep of the communication, and no more (Telecommunications Business Act, article 4).
    Upkeep,
    /// About nobody.
    Nobody,
}

impl Ground {
    /// What is printed.
    #[must_use]
    pub const fn text(self) -> Text {
        match self {
            Self::Service => Text {
                en: "needed for the sign-in that the person asked for, and told before (APPI articles 17, 18, 21)",
                ja: "本人が求めたサインインに必要で、事前に知らせている（個人情報保護法17・18・21条）",
            },
            Self::Security => Text {
                en: "needed to keep what is stored secure (APPI article 23)",
                ja: "安全管理に必要（個人情報保護法23条）",
            },
            Self::Evidence => Text {
                en: "needed to show that duties were kept (APPI articles 22, 33 to 35)",
                ja: "義務を果たしたことを示すために必要（個人情報保護法22・33～35条）",
            },
            Self::Upkeep => Text {
                en: "upkeep and security of the service, nothing else (Telecommunications Business Act, article 4)",
                ja: "設備の維持と安全のためだけに使う（電気通信事業法4条）",
            },
            Self::Nobody => Text { en: "about no person", ja: "個人に関するものではない" },
        }
    }
}

/// One kind of data, and the fields that hold it.
#[derive(Clone, Copy, Debug)]
pub struct Purpose {
    /// What it is called in exports and in `policy show`.
    pub kind: &'static str,
    /// What it is, as a person would say.
    pub what: Text,
    /// Where it stands: `table.column` of the store, `log.STREAM.FIELD`, `metric.LABEL`.
    pub fields: &'static [&'static str],
    /// What for.
    pub purpose: Text,
    /// For how long.
    pub kept: Kept,
    /// On what ground.
    pub ground: Ground,
}

impl Purpose {
    /// Whether it is about a person, so that it belongs into their export.
    #[must_use]
    pub fn personal(&self) -> bool {
        self.ground != Ground::Nobody
    }
}

/// The purpose of `kind`, which is one of the register's.
#[must_use]
pub fn of(kind: &str) -> Option<&'static Purpose> {
    REGISTER.iter().find(|purpose| purpose.kind == kind)
}

/// Fields that nobody gave a purpose, and fields of the register's that are not there, each once; `there` are those that
/// really are. Where this is not empty, the gateway does not start.
#[must_use]
pub fn without_purpose(there: &[String]) -> Vec<String> {
    let known: BTreeSet<&str> = REGISTER.iter().flat_map(|purpose| purpose.fields.iter().copied()).collect();
    let there: BTreeSet<&str> = there.iter().map(String::as_str).collect();
    let unknown = there.difference(&known).map(|field| format!("{field} has no purpose"));
    let gone = known.difference(&there).map(|field| format!("{field} has a purpose and is not there"));
    unknown.chain(gone).collect()
}

/// One line of `policy show`.
#[must_use]
pub fn line(purpose: &Purpose, periods: &Periods, tongue: Tongue) -> [String; 4] {
    [
        purpose.kind.to_owned(),
        purpose.purpose.say(tongue).to_owned(),
        purpose.kept.say(periods, tongue),
        purpose.ground.text().say(tongue).to_owned(),
    ]
}

/// Everything that is kept.
pub const REGISTER: &[Purpose] = &[
    Purpose {
        kind: "account",
        what: Text { en: "your account", ja: "アカウント" },
        fields: &["accounts.account", "accounts.state", "accounts.created_at", "accounts.tag"],
        purpose: Text {
            en: "to know which handsets are the same person's, under an id that names nobody",
            ja: "同じ利用者の携帯電話であることを、氏名を含まないIDで区別する",
        },
        kept: Kept::UntilErased,
        ground: Ground::Service,
    },
    Purpose {
        kind: "bindings",
        what: Text { en: "enrolled handsets", ja: "登録した携帯電話" },
        fields: &[
            "bindings.seq",
            "bindings.id",
            "bindings.account",
            "bindings.carrier",
            "bindings.scheme",
            "bindings.chain",
            "bindings.digest",
            "bindings.folded",
            "bindings.bound_on",
            "bindings.last_used_on",
            "bindings.rev",
            "bindings.notice",
        ],
        purpose: Text {
            en: "to recognise an enrolled handset when its person signs in, and to tell them once when the notice has changed",
            ja: "サインインのとき、登録された携帯電話かどうかを確かめる。「個人情報の取扱い」が変わったことを1回知らせる",
        },
        kept: Kept::Unused,
        ground: Ground::Service,
    },
    Purpose {
        kind: "labels",
        what: Text { en: "names you gave to handsets", ja: "携帯電話に付けた名前" },
        fields: &["binding_labels.binding", "binding_labels.label"],
        purpose: Text { en: "to tell your handsets apart", ja: "登録した携帯電話を見分ける" },
        kept: Kept::WithBinding,
        ground: Ground::Service,
    },
    Purpose {
        kind: "sessions",
        what: Text { en: "where you are signed in", ja: "サインイン中の記録" },
        fields: &[
            "sessions.seq",
            "sessions.token_hash",
            "sessions.id",
            "sessions.account",
            "sessions.binding",
            "sessions.carrier",
            "sessions.continuity",
            "sessions.sid_seed",
            "sessions.transport",
            "sessions.created_at",
            "sessions.last_seen_at",
            "sessions.expires_at",
            "sessions.link",
            "sessions.by_code",
            "sessions.pin_at",
        ],
        purpose: Text {
            en: "to keep you signed in, on the handset that signed in and no other",
            ja: "サインインした携帯電話でだけ、サインインを保つ",
        },
        kept: Kept::Session,
        ground: Ground::Service,
    },
    Purpose {
        kind: "codes",
        what: Text { en: "an enrolment code", ja: "登録コード" },
        fields: &[
            "codes.selector",
            "codes.account",
            "codes.mac",
            "codes.key",
            "codes.issuer",
            "codes.issued_at",
            "codes.expires_at",
            "codes.wrong_tries",
            "code_tries.selector",
            "code_tries.handset_tag",
            "code_tries.wrong_tries",
            "meta.stray_tries",
        ],
        purpose: Text {
            en: "to enrol a handset once, and to count wrong tries",
            ja: "携帯電話を1回だけ登録し、入力の誤りを数える",
        },
        kept: Kept::Code,
        ground: Ground::Service,
    },
    Purpose {
        kind: "pin",
        what: Text { en: "your PIN", ja: "暗証番号" },
        fields: &["pins.account", "pins.scheme", "pins.salt", "pins.mac", "pins.set_at"],
        purpose: Text {
            en: "to ask for a second secret where a page needs it; a keyed hash of the PIN, not the PIN",
            ja: "必要な画面で暗証番号を確かめる。番号そのものではなく、鍵付きハッシュを保存する",
        },
        kept: Kept::UntilErased,
        ground: Ground::Service,
    },
    Purpose {
        kind: "pin-tries",
        what: Text { en: "wrong PINs typed on a handset", ja: "暗証番号の誤りの回数" },
        fields: &["pin_tries.binding", "pin_tries.in_a_row", "pin_tries.busy_until"],
        purpose: Text {
            en: "to keep a PIN from being found by trying; until the right one is typed",
            ja: "暗証番号を試して当てられないようにする。正しく入力すれば消去",
        },
        kept: Kept::WithBinding,
        ground: Ground::Security,
    },
    Purpose {
        kind: "news",
        what: Text { en: "what you are told at the next sign-in", ja: "次のサインインでのお知らせ" },
        fields: &["news.seq", "news.binding", "news.kind", "news.about", "news.carrier", "news.day"],
        purpose: Text {
            en: "to tell you of another handset and of wrong PINs or codes; until you were told",
            ja: "ほかの携帯電話の登録や、暗証番号・コードの誤りを知らせる。知らせた後に消去",
        },
        kept: Kept::WithBinding,
        ground: Ground::Security,
    },
    Purpose {
        kind: "notices",
        what: Text { en: "notices that were in force", ja: "これまでの「個人情報の取扱い」" },
        fields: &["notices.seq", "notices.revision", "notices.document", "notices.digest", "notices.in_force_from"],
        purpose: Text {
            en: "to show what people were told, and when", ja: "いつ何を知らせていたかを示す"
        },
        kept: Kept::ForEver,
        ground: Ground::Nobody,
    },
    Purpose {
        kind: "subjects",
        what: Text { en: "the ids that consoles know you by", ja: "管理画面に渡すID" },
        fields: &["subjects.account", "subjects.upstream", "subjects.subject"],
        purpose: Text {
            en: "to let each console recognise you by an id of its own that means nothing elsewhere",
            ja: "管理画面ごとに別の、ほかでは意味のないIDで利用者を示す",
        },
        kept: Kept::UntilErased,
        ground: Ground::Service,
    },
    Purpose {
        kind: "holds",
        what: Text { en: "a legal hold", ja: "法令による保全" },
        fields: &["holds.account", "holds.reason", "holds.placed_by", "holds.placed_at"],
        purpose: Text {
            en: "to keep what the law forbids to erase for now",
            ja: "法令により、いまは消去できないものを保全する",
        },
        kept: Kept::UntilReleased,
        ground: Ground::Evidence,
    },
    Purpose {
        kind: "tombstones",
        what: Text { en: "random ids of what was erased", ja: "消去した記録の乱数ID" },
        fields: &["tombstones.seq", "tombstones.kind", "tombstones.id"],
        purpose: Text {
            en: "to erase it again where a backup from before is restored",
            ja: "以前のバックアップを戻したとき、もう一度消去する",
        },
        kept: Kept::WhileNeeded,
        ground: Ground::Nobody,
    },
    Purpose {
        kind: "drill",
        what: Text { en: "the copy that a drill works on", ja: "訓練用の一時的な複製" },
        // The columns of the store, as they are there.
        fields: &[],
        purpose: Text {
            en: "to rehearse what is done when a key leaks; it is erased when the drill is over",
            ja: "鍵の漏えいに備えた訓練のため。訓練が終わりしだい消去する",
        },
        kept: Kept::WhileNeeded,
        ground: Ground::Security,
    },
    Purpose {
        kind: "erasures",
        what: Text { en: "that an account was erased", ja: "消去の記録" },
        fields: &[
            "erasures.seq",
            "erasures.account",
            "erasures.pseudonym",
            "erasures.erased_at",
            "erasures.bindings",
            "erasures.codes",
            "erasures.subjects",
        ],
        purpose: Text {
            en: "to show that an erasure was carried out, without telling whose",
            ja: "消去したことを、だれのものかを示さずに記録する",
        },
        kept: Kept::Audit,
        ground: Ground::Evidence,
    },
    Purpose {
        kind: "audit",
        what: Text { en: "what was done to your account", ja: "アカウントに対する操作の記録" },
        fields: &[
            "audit_begin.one",
            "audit_begin.seq",
            "audit_entries.seq",
            "audit_entries.entry",
            "audit_entries.hash",
            "audit_checkpoints.seq",
            "audit_checkpoints.key",
            "audit_checkpoints.checkpoint",
            "audit_checkpoints.seal",
            "audit_keys.id",
            "audit_keys.public",
            "audit_pseudonyms.account",
            "audit_pseudonyms.key",
        ],
        purpose: Text {
            en: "to show who did what, under a pseudonym whose key is erased with the account",
            ja: "だれが何をしたかを、アカウントとともに鍵を消去する仮名で示す",
        },
        kept: Kept::Audit,
        ground: Ground::Evidence,
    },
    Purpose {
        kind: "approvals",
        what: Text { en: "what people at the operator's agreed to", ja: "運用担当者の承認の記録" },
        fields: &[
            "approvals.seq",
            "approvals.action",
            "approvals.object",
            "approvals.reason",
            "approvals.asked_by",
            "approvals.asked_at",
            "approvals.expires_at",
            "approvals.needs",
            "approvals.revision",
            "approvals.state",
            "approvals.ended_at",
            "approvals.ended_by",
            "approvals_given.seq",
            "approvals_given.approval",
            "approvals_given.given_by",
            "approvals_given.given_at",
        ],
        purpose: Text {
            en: "to show who agreed to what takes more than one person",
            ja: "複数人の承認が要る操作に、だれが同意したかを示す",
        },
        kept: Kept::Audit,
        ground: Ground::Evidence,
    },
    Purpose {
        kind: "access-log",
        what: Text { en: "the access log", ja: "アクセス記録" },
        fields: &[
            "log.access.time",
            "log.access.stream",
            "log.access.method",
            "log.access.path",
            "log.access.status",
            "log.access.client",
            "log.access.duration_us",
            "log.access.carrier",
            "log.access.request_id",
        ],
        purpose: Text {
            en: "upkeep of the service; no account stands there",
            ja: "設備の維持。アカウントは記録しない",
        },
        kept: Kept::AccessLog,
        ground: Ground::Upkeep,
    },
    Purpose {
        kind: "log-keys",
        what: Text { en: "keys of the sealed access log", ja: "暗号化したアクセス記録の鍵" },
        fields: &["log_keys.day", "log_keys.wrapped", "meta.log_keys_from"],
        purpose: Text {
            en: "to seal a day of the access log, so that no copy of it can be read once its key is destroyed",
            ja: "アクセス記録を日ごとに暗号化し、期限後は鍵を廃棄して写しも読めなくする",
        },
        kept: Kept::AccessLog,
        ground: Ground::Nobody,
    },
    Purpose {
        kind: "traces",
        what: Text { en: "traces of requests", ja: "処理時間の記録（トレース）" },
        fields: &[
            "span.trace_id",
            "span.span_id",
            "span.parent_span_id",
            "span.name",
            "span.kind",
            "span.start_time",
            "span.end_time",
            "span.status",
            "span.http.request.method",
            "span.http.response.status_code",
            "span.http.route",
            "span.url.path",
            "span.url.scheme",
            "span.server.address",
            "span.network.protocol.version",
            "span.error.type",
            "span.sekisho.upstream",
        ],
        purpose: Text {
            en: "upkeep of the service, where tracing is configured; neither account nor address stands there",
            ja: "設備の維持（トレースを設定した場合のみ）。アカウントもアドレスも記録しない",
        },
        kept: Kept::SecurityLog,
        ground: Ground::Upkeep,
    },
    Purpose {
        kind: "security-log",
        what: Text { en: "the security log", ja: "安全に関する記録" },
        fields: &[
            "log.security.time",
            "log.security.stream",
            "log.security.level",
            "log.security.event",
            "log.security.account",
            "log.security.carrier",
            "log.security.reason",
            "log.security.upstream",
            "log.security.key",
            "log.security.approval",
            "log.security.action",
            "log.security.object",
            "log.security.client",
            "log.security.count",
            "log.security.unchanged",
            "log.security.refused",
            "log.security.rotation",
            "log.security.by",
        ],
        purpose: Text {
            en: "to notice attacks on accounts and on the service",
            ja: "アカウントや設備への攻撃に気付く",
        },
        kept: Kept::SecurityLog,
        ground: Ground::Security,
    },
    Purpose {
        kind: "statistics",
        what: Text { en: "statistics", ja: "統計" },
        fields: &["statistics.day", "statistics.carrier", "statistics.kind", "statistics.count"],
        purpose: Text {
            en: "to see how much the service is used; counts of a day and a carrier, small ones never shown",
            ja: "利用状況を知る。日と携帯電話会社ごとの件数だけで、少ない件数は示さない",
        },
        kept: Kept::Statistics,
        ground: Ground::Nobody,
    },
    Purpose {
        kind: "keys",
        what: Text { en: "keys", ja: "鍵" },
        fields: &[
            "keys.id",
            "keys.purpose",
            "keys.state",
            "keys.suspended",
            "keys.compromised",
            "keys.wrapped",
            "keys.commitment",
            "keys.public",
            "keys.created_at",
            "keys.activated_at",
            "keys.retired_at",
            "keys.drained_at",
            "keys.destroyed_at",
            "schemes.id",
            "schemes.memory_kib",
            "schemes.passes",
            "schemes.salt",
            "schemes.pin_secret",
            "meta.one",
            "meta.store_id",
            "meta.created_at",
            "meta.generation",
            "meta.revision",
            "meta.had_keys",
            "migrations.version",
            "migrations.sha256",
            "migrations.applied_at",
        ],
        purpose: Text {
            en: "without them nothing that is stored tells anybody an identifier",
            ja: "これがなければ、保存した値から識別情報は分からない",
        },
        kept: Kept::WhileNeeded,
        ground: Ground::Nobody,
    },
    Purpose {
        kind: "rotations",
        what: Text { en: "replacements of keys", ja: "鍵の交換の記録" },
        fields: &[
            "rotations.seq",
            "rotations.id",
            "rotations.purpose",
            "rotations.from_key",
            "rotations.to_key",
            "rotations.state",
            "rotations.reason",
            "rotations.started_at",
            "rotations.finished_at",
            "rotations.drain_by",
            "rotations.total",
            "rotations.wrapped",
            "rotations.flattened",
            "rotations.cursor",
            "rotations.fence",
            "rotations.root_before",
            "rotations.root_after",
            "canaries.seq",
            "canaries.rotation",
            "canaries.octets",
            "canaries.dormant",
            "canaries.chain",
            "canaries.digest",
            "canary_observations.seq",
            "canary_observations.rotation",
            "canary_observations.phase",
            "canary_observations.at",
            "canary_observations.used",
            "canary_observations.dormant",
            "canary_observations.without_old_key",
            "documents.rotation",
            "documents.part",
            "documents.document",
        ],
        purpose: Text {
            en: "to show that keys were replaced and old ones destroyed",
            ja: "鍵を交換し、古い鍵を廃棄したことを示す",
        },
        kept: Kept::WhileNeeded,
        ground: Ground::Nobody,
    },
    Purpose {
        kind: "proofs",
        what: Text { en: "when promises were last kept", ja: "約束を守ったことの記録" },
        fields: &["proofs.name", "proofs.at", "proofs.ok", "proofs.detail"],
        purpose: Text {
            en: "to show that erasure and the other promises really happen; counts of nobody",
            ja: "消去などの約束が実際に守られていることを示す。だれのものかは含まない",
        },
        kept: Kept::Latest,
        ground: Ground::Nobody,
    },
    Purpose {
        kind: "metrics",
        what: Text { en: "figures for monitoring", ja: "監視のための数値" },
        fields: &[
            "metric.address",
            "metric.carrier",
            "metric.cause",
            "metric.le",
            "metric.outcome",
            "metric.promise",
            "metric.purpose",
            "metric.reason",
            "metric.server",
            "metric.serves",
            "metric.status",
            "metric.stream",
            "metric.upstream",
            "metric.version",
        ],
        purpose: Text {
            en: "to see that the service works; counts of no account and no handset",
            ja: "設備が動いていることを見る。アカウントや携帯電話ごとには数えない",
        },
        kept: Kept::Process,
        ground: Ground::Nobody,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_one_purpose() {
        let fields: Vec<&str> = REGISTER.iter().flat_map(|purpose| purpose.fields.iter().copied()).collect();
        let once: BTreeSet<&str> = fields.iter().copied().collect();
        assert_eq!(fields.len(), once.len());
        let kinds: BTreeSet<&str> = REGISTER.iter().map(|purpose| purpose.kind).collect();
        assert_eq!(kinds.len(), REGISTER.len());
    }

    #[test]
    fn what_has_no_purpose_is_named_and_so_is_what_is_gone() {
        let mut there: Vec<String> =
            REGISTER.iter().flat_map(|purpose| purpose.fields.iter().map(|field| (*field).to_owned())).collect();
        assert!(without_purpose(&there).is_empty());
        there[0] = "accounts.birthday".to_owned();
        assert_eq!(
            without_purpose(&there),
            ["accounts.birthday has no purpose", "accounts.account has a purpose and is not there"]
        );
    }

    #[test]
    fn every_japanese_text_can_be_sent_as_shift_jis() {
        for purpose in REGISTER {
            let kept = purpose.kept.say(&Periods::sample(), Tongue::Japanese);
            for text in [purpose.what.ja, purpose.purpose.ja, purpose.ground.text().ja, &kept] {
                let (_, _, unmappable) = encoding_rs::SHIFT_JIS.encode(text);
                assert!(!unmappable, "{text}");
            }
        }
    }
}
