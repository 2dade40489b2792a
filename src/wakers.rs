//! Lists of those who wait.

use std::task::Waker;

/// Adds a waker, unless the same task waits already.
pub(crate) fn remember(wakers: &mut Vec<Waker>, waker: &Waker) {
    if !wakers.iter().any(|known| known.will_wake(waker)) {
        wakers.push(waker.clone());
    }
}
