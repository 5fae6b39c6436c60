//! The macro that makes a plugin of a type.

/// Exports a type's abilities from this crate's component: `export!(Cart: Merger, Presenter, About);`.
///
/// The abilities are named as their traits are: `Merger`, `Validator`, `Operator`, `Sampler`, `Presenter`, `About`; the
/// type must implement each one that is listed. To be written once in a crate, with `Merger` among them, or the host
/// refuses the component. Unless the target is WebAssembly it only checks that the type has the abilities.
#[macro_export]
macro_rules! export {
    ($plugin:ty: $($ability:ident),+ $(,)?) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type RejoinPlugin = $crate::macro_support::Adapter<$plugin>;
            $($crate::export!(@ability $ability);)+
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() = || {
            $({
                fn has_ability<T: $crate::$ability>() {}
                has_ability::<$plugin>();
            })+
        };
    };
    (@ability Merger) => { $crate::macro_support::merge::export_merge!(RejoinPlugin with_types_in $crate::macro_support::merge); };
    (@ability Validator) => { $crate::macro_support::validate::export_validate!(RejoinPlugin with_types_in $crate::macro_support::validate); };
    (@ability Operator) => { $crate::macro_support::operate::export_operate!(RejoinPlugin with_types_in $crate::macro_support::operate); };
    (@ability Sampler) => { $crate::macro_support::sample::export_sample!(RejoinPlugin with_types_in $crate::macro_support::sample); };
    (@ability Presenter) => { $crate::macro_support::present::export_present!(RejoinPlugin with_types_in $crate::macro_support::present); };
    (@ability About) => { $crate::macro_support::describe::export_describe!(RejoinPlugin with_types_in $crate::macro_support::describe); };
}
