//! The macro that exports a plugin type from its crate.

/// Exports a type's traits from the crate's component: `export!(Cart: Merger, Presenter, Describer);`.
///
/// The list may name `Merger`, `Validator`, `Operator`, `Sampler`, `Presenter` and `Describer`; the type must implement
/// each trait that is listed. Use the macro once in a crate. `Merger` is required, or the host refuses the component.
/// On native targets the macro only checks that the type implements the traits.
#[macro_export]
macro_rules! export {
    ($plugin:ty: $($interface:ident),+ $(,)?) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type RejoinPlugin = $crate::macro_support::Adapter<$plugin>;
            $($crate::export!(@export $interface);)+
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() = || {
            $({
                fn implements<T: $crate::$interface>() {}
                implements::<$plugin>();
            })+
        };
    };
    (@export Merger) => { $crate::macro_support::merge::export_merge!(RejoinPlugin with_types_in $crate::macro_support::merge); };
    (@export Validator) => { $crate::macro_support::validate::export_validate!(RejoinPlugin with_types_in $crate::macro_support::validate); };
    (@export Operator) => { $crate::macro_support::operate::export_operate!(RejoinPlugin with_types_in $crate::macro_support::operate); };
    (@export Sampler) => { $crate::macro_support::sample::export_sample!(RejoinPlugin with_types_in $crate::macro_support::sample); };
    (@export Presenter) => { $crate::macro_support::present::export_present!(RejoinPlugin with_types_in $crate::macro_support::present); };
    (@export Describer) => { $crate::macro_support::describe::export_describe!(RejoinPlugin with_types_in $crate::macro_support::describe); };
}
