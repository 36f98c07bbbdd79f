//! A request body as lines, one at a time, however long it is.

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use zeroize::{Zeroize as _, Zeroizing};

/// Most bytes of a line. What is longer is passed over without being kept.
pub(super) const MOST_BYTES: usize = 64 << 10;

/// A line without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'l> {
    Whole(&'l [u8]),
    /// The last one, without a line feed.
    Unended(&'l [u8]),
    TooLong,
}

/// What `read` makes of each line, with its number from 1; blank lines count and are passed over. The text of a line
/// is wiped as soon as it was read. After an error nothing follows, and what came of the last line was not read.
pub(super) fn read_lines<T>(
    body: Body,
    read: impl Fn(Line<'_>) -> T,
) -> impl Stream<Item = Result<(u64, T), axum::Error>> {
    let lines = Lines::of(body);
    stream::unfold((Some(lines), read), async |(lines, read)| {
        let mut lines = lines?;
        loop {
            match lines.advance().await {
                Ok(true) => {
                    let made = lines.line().map(&read);
                    lines.wipe();
                    if let Some(made) = made {
                        return Some((Ok((lines.number, made)), (Some(lines), read)));
                    }
                }
                Ok(false) => return None,
                Err(error) => return Some((Err(error), (None, read))),
            }
        }
    })
    .fuse()
}

struct Lines {
    body: BodyDataStream,
    /// What came and was not looked at.
    rest: Bytes,
    /// What there is of the line. Never grows beyond its first capacity, which would leave an unwiped copy behind.
    line: Zeroizing<Vec<u8>>,
    too_long: bool,
    ended: bool,
    number: u64,
}

impl Lines {
    fn of(body: Body) -> Self {
        let line = Zeroizing::new(Vec::with_capacity(MOST_BYTES));
        Self { body: body.into_data_stream(), rest: Bytes::new(), line, too_long: false, ended: true, number: 0 }
    }

    /// Gathers the next line; `false` if there is none.
    async fn advance(&mut self) -> Result<bool, axum::Error> {
        self.number += 1;
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let part = self.rest.split_to(end);
                let _line_feed = self.rest.split_to(1);
                self.add(&part);
                return Ok(true);
            }
            let part = std::mem::take(&mut self.rest);
            self.add(&part);
            let Some(more) = self.body.next().await else {
                self.ended = false;
                return Ok(self.too_long || !self.line.is_empty());
            };
            self.rest = more?;
        }
    }

    fn add(&mut self, part: &[u8]) {
        self.too_long |= self.line.len() + part.len() > MOST_BYTES;
        if self.too_long {
            self.wipe_text();
        } else {
            self.line.extend_from_slice(part);
        }
    }

    /// `None` if it is blank.
    fn line(&self) -> Option<Line<'_>> {
        if self.too_long {
            return Some(Line::TooLong);
        }
        let line = if self.ended { Line::Whole(&self.line) } else { Line::Unended(&self.line) };
        (!self.line.trim_ascii().is_empty()).then_some(line)
    }

    fn wipe(&mut self) {
        self.wipe_text();
        self.too_long = false;
    }

    fn wipe_text(&mut self) {
        self.line.as_mut_slice().zeroize();
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use futures_util::TryStreamExt as _;
    use proptest::prelude::*;

    use super::*;

    type Text = Option<Vec<u8>>;

    fn owned(line: Line<'_>) -> Text {
        match line {
            Line::Whole(text) | Line::Unended(text) => Some(text.to_vec()),
            Line::TooLong => None,
        }
    }

    fn lines(chunks: Vec<io::Result<Vec<u8>>>) -> (Vec<(u64, Text)>, bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = Body::from_stream(stream::iter(chunks));
        let mut read = Vec::new();
        let whole = runtime.block_on(read_lines(body, owned).try_for_each(|line| {
            read.push(line);
            std::future::ready(Ok(()))
        }));
        (read, whole.is_ok())
    }

    #[test]
    fn lines_have_the_numbers_of_the_file() {
        let (read, whole) = lines(vec![Ok(b"a\n\nb".to_vec()), Ok(b"c\r\n \t\n".to_vec()), Ok(b"d".to_vec())]);
        assert!(whole);
        assert_eq!(read, [(1, Some(b"a".to_vec())), (3, Some(b"bc\r".to_vec())), (5, Some(b"d".to_vec()))]);
    }

    #[tokio::test]
    async fn a_last_line_without_a_line_feed_is_told() {
        for (text, expected) in [("a\nb\n", vec![true, true]), ("a\nb", vec![true, false]), ("a", vec![false])] {
            let lines = read_lines(Body::from(text), |line| matches!(line, Line::Whole(_)));
            let ended: Vec<_> = lines.map_ok(|(_, ended)| ended).try_collect().await.unwrap();
            assert_eq!(ended, expected, "{text:?}");
        }
    }

    #[tokio::test]
    async fn after_its_end_or_an_error_nothing_follows() {
        let broken: Vec<io::Result<Vec<u8>>> = vec![Err(io::ErrorKind::ConnectionReset.into()), Ok(b"a\n".to_vec())];
        for (chunks, items) in [(Vec::new(), 0), (broken, 1)] {
            let mut lines = Box::pin(read_lines(Body::from_stream(stream::iter(chunks)), owned));
            assert_eq!(lines.as_mut().count().await, items);
            assert!(lines.next().await.is_none());
        }
    }

    #[test]
    fn a_line_that_broke_off_is_no_line() {
        let (read, whole) = lines(vec![Ok(b"a\nb".to_vec()), Err(io::ErrorKind::ConnectionReset.into())]);
        assert!(!whole);
        assert_eq!(read, [(1, Some(b"a".to_vec()))]);
    }

    #[test]
    fn a_line_that_is_too_long_costs_no_memory_and_the_next_is_read() {
        let kept = Lines::of(Body::empty()).line.capacity();
        for (length, expected) in [(MOST_BYTES, Some(vec![b'x'; MOST_BYTES])), (MOST_BYTES + 1, None)] {
            let (read, _) = lines(vec![Ok(vec![b'x'; length - 1]), Ok(b"x\nshort\n".to_vec())]);
            assert_eq!(read, [(1, expected), (2, Some(b"short".to_vec()))]);
        }
        let mut long =
            Lines::of(Body::from_stream(stream::iter((0..100).map(|_| Ok::<_, io::Error>(vec![b'x'; MOST_BYTES])))));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert!(runtime.block_on(long.advance()).unwrap());
        assert_eq!((long.line(), long.line.len(), long.line.capacity()), (Some(Line::TooLong), 0, kept));
    }

    proptest! {
        #[test]
        fn how_it_is_cut_does_not_matter(text in "[ab \n]{0,60}", cuts in prop::collection::vec(0..61_usize, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < text.len()).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let chunks = cuts.windows(2).map(|pair| Ok(text.as_bytes()[pair[0]..pair[1]].to_vec())).collect();
            let expected: Vec<(u64, Text)> = (1..)
                .zip(text.split('\n'))
                .filter(|(_, line)| !line.trim().is_empty())
                .map(|(number, line)| (number, Some(line.as_bytes().to_vec())))
                .collect();
            prop_assert_eq!(lines(chunks), (expected, true));
        }
    }
}
