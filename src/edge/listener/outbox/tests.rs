use futures_util::FutureExt as _;
use futures_util::future::join_all;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{
    AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, Empty, ReadHalf, WriteHalf, duplex, empty, split,
};
use tokio::task::coop::poll_proceed;
use tokio::task::yield_now;

use super::*;

/// The lengths of the slices of each write, and their bytes.
type Written = (Vec<Vec<usize>>, Vec<u8>);

/// Notes how it was written to, and then fails, if it is to.
#[derive(Clone, Default)]
struct Kernel {
    written: Arc<Mutex<Written>>,
    broken: Arc<AtomicBool>,
}

impl Kernel {
    fn bytes(&self) -> Vec<u8> {
        lock(&self.written).1.clone()
    }
}

impl AsyncWrite for Kernel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.broken.load(Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut written = lock(&self.written);
        written.0.push(slices.iter().map(|slice| slice.len()).collect());
        for slice in slices {
            written.1.extend_from_slice(slice);
        }
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Nothing is read of it.
impl Socket for Kernel {
    type Read = Empty;
    type Write = Self;

    fn halves(self) -> (Empty, Self) {
        (empty(), self)
    }
}

impl Socket for DuplexStream {
    type Read = ReadHalf<Self>;
    type Write = WriteHalf<Self>;

    fn halves(self) -> (ReadHalf<Self>, WriteHalf<Self>) {
        split(self)
    }
}

/// An outbox for which no turn is calm.
fn holding() -> Arc<Outbox> {
    Outbox::start_with(0)
}

/// That, and one whose first turns are calm.
fn both() -> [Arc<Outbox>; 2] {
    [holding(), Outbox::start()]
}

/// Shows what is held of a stream that is in use.
fn held<S: Socket, R>(stream: &Outgoing<S>, shown: impl FnOnce(&Held) -> R) -> R {
    shown(at(&mut lock(&stream.outbox.streams).places, stream.place.index).unwrap())
}

fn pair(outbox: &Arc<Outbox>, room: usize) -> (Outgoing<DuplexStream>, DuplexStream) {
    let (near, far) = duplex(room);
    (Outgoing::new(near, Some(outbox)), far)
}

#[tokio::test]
async fn what_is_small_is_one_write_and_what_is_large_is_not_copied() {
    for (lengths, written) in [
        (&[5][..], &[5][..]),
        (&[70_000], &[70_000]),
        (&[3, 4], &[7]),
        (&[1000, 0, 1048], &[SMALL]),
        (&[1000, 1049], &[1000, 1049]),
        (&[200, 65_536], &[200, 65_536]),
    ] {
        let parts: Vec<Vec<u8>> = lengths.iter().map(|length| (0..=250).cycle().take(*length).collect()).collect();
        let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        for outbox in [None, Some(holding())] {
            let kernel = Kernel::default();
            let mut stream = Outgoing::new(kernel.clone(), outbox.as_ref());
            assert_eq!(stream.write_vectored(&slices).await.unwrap(), parts.concat().len());
            yield_now().await;
            assert_eq!(*lock(&kernel.written), (vec![written.to_vec()], parts.concat()));
        }
    }
}

#[tokio::test]
async fn what_streams_write_in_one_turn_leaves_at_its_end() {
    let outbox = holding();
    let kernels: [Kernel; 3] = Default::default();
    let mut streams = kernels.clone().map(|kernel| Outgoing::new(kernel, Some(&outbox)));
    for round in 1..3 {
        for stream in &mut streams {
            stream.write_all(b"he").await.unwrap();
            stream.write_all(b"ad").await.unwrap();
            stream.flush().await.unwrap();
        }
        assert!(kernels.iter().all(|kernel| kernel.bytes() == b"head".repeat(round - 1)), "until then nothing");
        assert_eq!(lock(&outbox.streams).put.len(), 3, "each is put in once");
        yield_now().await;
        assert!(kernels.iter().all(|kernel| kernel.bytes() == b"head".repeat(round)));
        assert!(kernels.iter().all(|kernel| lock(&kernel.written).0.len() == round), "in one write");
        assert!(streams.iter().all(|stream| held(stream, |held| held.bytes.capacity() == 0)), "its room is free");
    }
    assert_eq!(lock(&outbox.streams).rooms.len(), 3);
}

#[tokio::test]
async fn a_turn_ends_when_many_are_held_up() {
    let outbox = holding();
    let kernel = Kernel::default();
    let mut streams: Vec<_> = (0..=MOST).map(|_| Outgoing::new(kernel.clone(), Some(&outbox))).collect();
    for stream in &mut streams {
        stream.write_all(b"x").await.unwrap();
    }
    assert_eq!(kernel.bytes().len(), MOST);
    yield_now().await;
    assert_eq!(kernel.bytes().len(), MOST + 1);
}

#[tokio::test]
async fn in_calm_nothing_is_held() {
    let outbox = Outbox::start();
    let kernel = Kernel::default();
    let mut streams: Vec<_> = (0..CALM).map(|_| Outgoing::new(kernel.clone(), Some(&outbox))).collect();
    let mut expected = 0;
    // How many pieces each turn has, and how many of these left before its end: as the turn before has it.
    for (pieces, left) in
        [(1, 1), (CALM - 1, CALM - 1), (CALM, CALM), (1, 0), (CALM, CALM), (CALM, 0), (CALM - 1, 0), (CALM, CALM)]
    {
        for stream in streams.iter_mut().take(pieces) {
            stream.write_all(b"x").await.unwrap();
            stream.flush().await.unwrap();
        }
        assert_eq!(kernel.bytes().len(), expected + left);
        yield_now().await;
        expected += pieces;
        assert_eq!(kernel.bytes().len(), expected);
    }
}

#[tokio::test]
async fn nothing_overtakes() {
    let kernel = Kernel::default();
    let mut stream = Outgoing::new(kernel.clone(), Some(&holding()));
    let large = vec![b'l'; SMALL + 1];
    stream.write_all(b"first").await.unwrap();
    stream.write_all(&large).await.unwrap();
    stream.write_all(b"last").await.unwrap();
    stream.shutdown().await.unwrap();
    let expected = [&b"first"[..], &large, b"last"].concat();
    assert_eq!(kernel.bytes(), expected);
    yield_now().await;
    assert_eq!(kernel.bytes(), expected, "and nothing is sent twice");
}

#[tokio::test]
async fn the_small_pieces_of_a_turn_join_on_either_side_of_a_large_one() {
    let kernel = Kernel::default();
    let mut stream = Outgoing::new(kernel.clone(), Some(&holding()));
    for piece in [&b"he"[..], b"ad", &[b'l'; SMALL + 1], b"ta", b"il"] {
        stream.write_all(piece).await.unwrap();
    }
    assert_eq!(lock(&kernel.written).0, [[4], [SMALL + 1]]);
    yield_now().await;
    assert_eq!(lock(&kernel.written).0, [[4], [SMALL + 1], [4]]);
}

#[tokio::test]
async fn a_place_serves_one_stream_after_the_other() {
    let outbox = holding();
    let kernels: [Kernel; 3] = Default::default();
    for kernel in &kernels {
        let mut stream = Outgoing::new(kernel.clone(), Some(&outbox));
        stream.write_all(b"own").await.unwrap();
    }
    assert!(kernels.iter().all(|kernel| kernel.bytes() == b"own"));
    let mut last = Outgoing::new(kernels[0].clone(), Some(&outbox));
    last.write_all(b"'s").await.unwrap();
    yield_now().await;
    assert_eq!(kernels[0].bytes(), b"own's");
    assert_eq!(lock(&outbox.streams).places.len(), 1);
}

/// What is done with a stream.
#[derive(Clone, Debug)]
enum Step {
    Write(usize),
    Flush,
    /// The turn is over.
    Turn,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..200_usize).prop_map(Step::Write),
        2 => (SMALL - 100..SMALL + 100).prop_map(Step::Write),
        1 => (3 * SMALL..5 * SMALL).prop_map(Step::Write),
        2 => Just(Step::Flush),
        2 => Just(Step::Turn),
    ];
    vec(step, 0..30)
}

proptest! {
    /// Of two streams that share an outbox, whatever the far side takes at once and reads at a time.
    #[test]
    fn bytes_come_as_they_were_written(
        steps in [steps(), steps()],
        room in 1..3 * SMALL,
        reads in 1..SMALL,
        calm in prop::sample::select(vec![0, 2, CALM]),
    ) {
        let turns = async {
            let outbox = Outbox::start_with(calm);
            join_all(steps.map(|steps| {
                let (mut near, mut far) = pair(&outbox, room);
                let lengths = steps.iter().map(|step| if let Step::Write(length) = step { *length } else { 0 });
                let bytes: Vec<u8> = (0..=250).cycle().take(lengths.sum()).collect();
                let expected = bytes.clone();
                let writing = async move {
                    let mut left = &bytes[..];
                    for step in steps {
                        match step {
                            Step::Write(length) => near.write_all(left.split_off(..length).unwrap()).await.unwrap(),
                            Step::Flush => near.flush().await.unwrap(),
                            Step::Turn => yield_now().await,
                        }
                    }
                    near.shutdown().await.unwrap();
                };
                let reading = async move {
                    let (mut all, mut piece) = (Vec::new(), vec![0; reads]);
                    while let length @ 1.. = far.read(&mut piece).await.unwrap() {
                        all.extend_from_slice(&piece[..length]);
                    }
                    assert!(all == expected, "{} bytes come of {}", all.len(), expected.len());
                };
                async { tokio::join!(tokio::spawn(writing), reading).0.unwrap() }
            }))
            .await;
        };
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
            tokio::time::timeout(std::time::Duration::from_secs(10), turns).await.expect("nobody wakes it");
        });
    }
}

#[tokio::test]
async fn what_does_not_fit_is_sent_later_and_nobody_has_to_ask() {
    for outbox in both() {
        let (mut near, mut far) = pair(&outbox, 8);
        near.write_all(b"more than eight bytes").await.unwrap();
        yield_now().await;
        let mut read = [0; 21];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"more than eight bytes");
        near.write_all(b"again more than eight").await.unwrap();
        yield_now().await;
        // Now its user waits for it.
        let (flushed, came) = tokio::join!(near.flush(), far.read_exact(&mut read));
        flushed.unwrap();
        came.unwrap();
        assert_eq!(&read, b"again more than eight");
    }
}

#[tokio::test]
async fn more_is_taken_when_what_was_held_is_sent() {
    for outbox in both() {
        let (mut near, mut far) = pair(&outbox, 8);
        near.write_all(b"0123456789").await.unwrap();
        yield_now().await;
        let mut writing = Box::pin(async move { near.write_all(b"abc").await });
        assert!(writing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "it is blocked");
        let mut read = [0; 13];
        let (written, came) = tokio::join!(writing, far.read_exact(&mut read));
        written.unwrap();
        came.unwrap();
        assert_eq!(&read, b"0123456789abc");
    }
}

#[tokio::test]
async fn who_waits_from_the_turn_on_in_which_it_wrote_is_woken() {
    let outbox = holding();
    let (mut near, mut far) = pair(&outbox, 8);
    let writing = async move {
        near.write_all(b"0123456789").await.unwrap();
        near.write_all(&[b'l'; SMALL]).await.unwrap();
        near.write_all(b"the tail of it").await.unwrap();
        near.shutdown().await.unwrap();
        near
    };
    let reading = async {
        // Blocked first, by a reader that is late.
        for _ in 0..5 {
            yield_now().await;
        }
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        read.len()
    };
    let both = async { tokio::join!(tokio::spawn(writing), reading) };
    let (_near, read) = tokio::time::timeout(std::time::Duration::from_secs(2), both).await.expect("nobody wakes it");
    assert_eq!(read, 10 + SMALL + 14);
}

/// Puts off the first write, and says at once that the next may be tried.
struct Later(bool, Kernel);

impl AsyncWrite for Later {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self(is_asked, kernel) = self.get_mut();
        if replace(is_asked, true) {
            return Pin::new(kernel).poll_write(cx, bytes);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Socket for Later {
    type Read = Empty;
    type Write = Self;

    fn halves(self) -> (Empty, Self) {
        (empty(), self)
    }
}

#[tokio::test]
async fn streams_may_wake_while_they_are_written_to() {
    for outbox in both() {
        let kernel = Kernel::default();
        let later = || Later(false, kernel.clone());
        let mut streams: Vec<_> = (0..MOST).map(|_| Outgoing::new(later(), Some(&outbox))).collect();
        for stream in &mut streams {
            stream.write_all(b"x").await.unwrap();
        }
        yield_now().await;
        assert_eq!(kernel.bytes().len(), MOST);
    }
}

#[tokio::test]
async fn a_failure_is_told_to_who_wrote() {
    for outbox in both() {
        let kernel = Kernel::default();
        let mut stream = Outgoing::new(kernel.clone(), Some(&outbox));
        kernel.broken.store(true, Relaxed);
        let mut is_woken = false;
        let told = poll_fn(|cx| {
            if replace(&mut is_woken, true) {
                return Pin::new(&mut stream).poll_flush(cx);
            }
            assert!(Pin::new(&mut stream).poll_write(cx, b"lost").is_ready());
            Poll::Pending
        });
        assert_eq!(told.await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(held(&stream, |held| held.bytes.is_empty()));
    }
}

#[tokio::test]
async fn what_is_dropped_is_sent_and_closed_at_once() {
    let outbox = holding();
    let (mut near, mut far) = pair(&outbox, 64);
    near.write_all(b"the last words").await.unwrap();
    drop(near);
    let mut read = String::new();
    far.read_to_string(&mut read).now_or_never().expect("closed before the turn is over").unwrap();
    assert_eq!(read, "the last words");
}

#[tokio::test]
async fn what_is_dropped_is_sent_by_a_task_that_has_had_its_turn_too() {
    let (mut near, mut far) = pair(&holding(), 64);
    let dropping = poll_fn(|cx| {
        near.write_all(b"the last words").now_or_never().unwrap().unwrap();
        while let Poll::Ready(turn) = poll_proceed(cx) {
            turn.made_progress();
        }
        Poll::Ready(())
    });
    dropping.await;
    drop(near);
    let mut read = String::new();
    far.read_to_string(&mut read).await.unwrap();
    assert_eq!(read, "the last words");
}

#[tokio::test]
async fn nothing_is_held_for_a_stream_that_is_full() {
    let outbox = holding();
    let (mut near, mut far) = pair(&outbox, SMALL);
    assert_eq!(near.write(&[b'l'; SMALL + 5]).await.unwrap(), SMALL);
    assert!(near.write(b"tail").now_or_never().is_none(), "who writes it waits");
    let mut read = vec![0; SMALL];
    far.read_exact(&mut read).await.unwrap();
    assert_eq!(near.write(b"more").await.unwrap(), 4);
    assert_eq!(far.read(&mut read).now_or_never().unwrap().unwrap(), 4, "at once, with a write of its own");
    near.write_all(b"held").await.unwrap();
    assert!(far.read(&mut read).now_or_never().is_none(), "as before");
}

#[tokio::test]
async fn a_stream_that_takes_no_more_closes_when_it_is_dropped() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    let outbox = holding();
    let mut near = Outgoing::new(near, Some(&outbox));
    while near.write_all(&[0; SMALL]).now_or_never().is_some() {
        yield_now().await;
    }
    assert!(held(&near, |held| !held.is_put && !held.is_empty()), "some of it is held");
    drop(near);
    let mut rest = Vec::new();
    let reading = tokio::time::timeout(std::time::Duration::from_secs(2), far.read_to_end(&mut rest));
    reading.await.expect("it is closed").unwrap();
}

#[tokio::test]
async fn the_carrier_goes_with_its_outbox() {
    let outbox = holding();
    yield_now().await;
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 1);
    drop(outbox);
    yield_now().await;
    assert_eq!(metrics.num_alive_tasks(), 0);
}
