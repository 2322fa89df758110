//! Events for `tracing`, behind the feature of that name. Without it they are nothing, and cost nothing.

/// An event of a level, with fields and a message: `event!(DEBUG, tokens = 3, "step")`.
macro_rules! event {
    ($level:ident, $($rest:tt)+) => {
        #[cfg(feature = "tracing")]
        tracing::event!(tracing::Level::$level, $($rest)+);
    };
}

pub(crate) use event;
