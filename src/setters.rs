//! Setters of public structs that go into the library: one for each field, under its name. So a struct may get a field
//! more without harm to anyone.

/// Gives a struct a setter for each field named, which takes the struct and returns it.
macro_rules! setters {
    ($type:ident { $($field:ident: $kind:ty),+ $(,)? }) => {
        impl $type {
            $(
                #[doc = concat!("The same with [`", stringify!($field), "`](Self#structfield.", stringify!($field), ") as given.")]
                #[must_use]
                pub fn $field(mut self, $field: $kind) -> Self {
                    self.$field = $field;
                    self
                }
            )+
        }
    };
}

pub(crate) use setters;
