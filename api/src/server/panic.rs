//! Converts a panic in a handler to a response; hyper would close the connection without one.

use std::{any::Any, panic::AssertUnwindSafe};

use futures_util::FutureExt as _;

use crate::http::problem::Problem;

/// Runs a handler's future and converts a panic to a [`Problem`]. This is unwind safe: values that the future borrowed
/// are not used after a panic, and the locks around shared state are not poisoned.
pub async fn catch<T>(future: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => Err(Problem::internal(format_args!("panic: {}", message(panic.as_ref())))),
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("of unknown kind")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::problem::Code;

    #[tokio::test]
    async fn panics_become_internal_problems() {
        let panicking = async { if true { panic!("at the {}", "disco") } else { Ok(()) } };
        let problem = catch(panicking).await.expect_err("it panicked");
        assert_eq!((problem.code(), problem.internal_cause()), (Code::Internal, Some("panic: at the disco")));
    }
}
