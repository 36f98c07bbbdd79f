//! Which URLs are ours.

use url::Url;

use crate::config::Origin;
use crate::edge::HostAllowList;

/// The origins that a token may be sent to, and the one that is ours but may not see it.
pub struct OwnSites {
    public: Origin,
    plain: Origin,
    hosts: HostAllowList,
    root: Option<Url>,
}

/// Whose a URL is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Ours: it may carry the token.
    Ours,
    /// Ours, but in the clear where sessions live over TLS: no token, and nothing to warn of.
    OursInTheClear,
    /// Another site's, or another scheme's or port's of our host.
    Others,
}

impl OwnSites {
    /// `public` and `plain` as browsers see them, `hosts` by which names they may ask.
    #[must_use]
    pub fn new(public: &Origin, plain: &Origin, hosts: &HostAllowList) -> Self {
        let root = Url::parse(&public.to_string()).ok();
        Self { public: public.clone(), plain: plain.clone(), hosts: hosts.clone(), root }
    }

    /// The page at `path_and_query`. `None` where no URL can be made of it: then nothing on it is ours.
    pub(super) fn page(&self, path_and_query: &str) -> Option<Url> {
        let root = self.root.as_ref()?;
        // Set, not joined: a path that begins with `//` is still a path.
        let mut page = root.clone();
        let (path, query) = path_and_query.split_once('?').map_or((path_and_query, None), |(p, q)| (p, Some(q)));
        page.set_path(path);
        page.set_query(query);
        (page.origin() == root.origin()).then_some(page)
    }

    /// Scheme, host and port without a final slash.
    pub(super) fn origin(&self) -> String {
        self.public.to_string()
    }

    /// Whose the absolute URL is.
    pub(super) fn whose(&self, url: &Url) -> Whose {
        let Some(host) = url.host_str() else { return Whose::Others };
        let allowed = self.hosts.allows(host);
        let at = |origin: &Origin| {
            (allowed || host.eq_ignore_ascii_case(&origin.host))
                && url.scheme() == if origin.https { "https" } else { "http" }
                && url.port_or_known_default() == Some(origin.port.unwrap_or(if origin.https { 443 } else { 80 }))
        };
        if at(&self.public) {
            Whose::Ours
        } else if at(&self.plain) {
            if self.public.https { Whose::OursInTheClear } else { Whose::Ours }
        } else {
            Whose::Others
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sites(public: (bool, Option<u16>), plain: Option<u16>) -> OwnSites {
        let origin = |https, port| Origin { https, host: "admin.example.jp".to_owned(), port };
        let hosts = HostAllowList::new(["admin.example.jp".to_owned(), "m.example.jp".to_owned()]);
        OwnSites::new(&origin(public.0, public.1), &origin(false, plain), &hosts)
    }

    #[test]
    fn a_token_goes_to_scheme_host_and_port_of_ours() {
        let (tls, clear, odd) =
            (sites((true, None), None), sites((false, None), None), sites((false, Some(8080)), None));
        for (url, over_tls, in_the_clear, odd_port) in [
            ("https://admin.example.jp/", Whose::Ours, Whose::Others, Whose::Others),
            ("https://ADMIN.example.jp:443/", Whose::Ours, Whose::Others, Whose::Others),
            ("http://admin.example.jp/", Whose::OursInTheClear, Whose::Ours, Whose::Ours),
            ("http://m.example.jp/", Whose::OursInTheClear, Whose::Ours, Whose::Ours),
            ("http://admin.example.jp:8080/", Whose::Others, Whose::Others, Whose::Ours),
            ("https://admin.example.jp:80/", Whose::Others, Whose::Others, Whose::Others),
            ("https://admin.example.jp.evil.example/", Whose::Others, Whose::Others, Whose::Others),
            ("https://xadmin.example.jp/", Whose::Others, Whose::Others, Whose::Others),
            ("ftp://admin.example.jp/", Whose::Others, Whose::Others, Whose::Others),
            ("mailto:root@admin.example.jp", Whose::Others, Whose::Others, Whose::Others),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!([&tls, &clear, &odd].map(|s| s.whose(&url)), [over_tls, in_the_clear, odd_port], "{url}");
        }
    }
}
