//! A panic in a handler is an answer like any other defect; hyper would close the connection without one.

use std::{any::Any, panic::AssertUnwindSafe};

use futures_util::FutureExt as _;

use crate::http::problem::Problem;

/// Runs a handler's future; a panic becomes a [`Problem`]. What the future had borrowed is not used after
/// one, and shared state is behind locks that recover.
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
    async fn a_panic_gets_an_internal_error_response() {
        let panicking = async { if true { panic!("at the {}", "disco") } else { Ok(()) } };
        let problem = catch(panicking).await.expect_err("it panicked");
        assert_eq!((problem.code(), problem.internal_cause()), (Code::Internal, Some("panic: at the disco")));
    }
}
