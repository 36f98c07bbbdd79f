//! Work that its caller cannot break off.
//!
//! A handset that hangs up takes the handling of its request with it, at whatever await it stands. What changes
//! something and writes that into the audit trail must not be left between the two: whoever does it could choose that
//! it is not written.

use crate::store::StoreError;

/// Does `work` to its end, whatever becomes of the request that asked for it.
///
/// # Errors
/// Those of `work`, and [`StoreError::Closed`] if it panicked or the gateway ended.
pub(super) async fn to_the_end<T, E>(work: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    tokio::spawn(work).await.unwrap_or_else(|_| Err(StoreError::Closed.into()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_any_more_is_done_all_the_same() {
        let (told, done) = oneshot::channel();
        let work = to_the_end(async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            told.send(()).map_err(|()| StoreError::Closed)
        });
        assert!(tokio::time::timeout(Duration::from_secs(1), work).await.is_err(), "given up");
        done.await.unwrap();
        let panicked = to_the_end::<(), StoreError>(async { panic!("on purpose") }).await;
        assert_eq!(panicked, Err(StoreError::Closed));
    }
}
