//! Modules that are one of several. Burn's own derive puts the variant's name into the names of parameters, on which
//! checkpoints hang; here an enum is as if what it holds stood in its place.

/// Makes an enum of modules, one in each variant, such a module.
macro_rules! one_of {
    ($name:ident { $($variant:ident),* $(,)? }) => {
        impl burn::module::Module for $name {
            fn collect_devices(&self, devices: burn::module::Devices) -> burn::module::Devices {
                match self { $(Self::$variant(inner) => inner.collect_devices(devices),)* }
            }

            fn fork(self, device: &burn::tensor::Device) -> Self {
                match self { $(Self::$variant(inner) => Self::$variant(inner.fork(device)),)* }
            }

            fn to_device(self, device: &burn::tensor::Device) -> Self {
                match self { $(Self::$variant(inner) => Self::$variant(burn::module::Module::to_device(inner, device)),)* }
            }

            fn train(self) -> Self {
                match self { $(Self::$variant(inner) => Self::$variant(burn::module::Module::train(inner)),)* }
            }

            fn valid(&self) -> Self {
                match self { $(Self::$variant(inner) => Self::$variant(burn::module::Module::valid(inner)),)* }
            }

            fn materialize(self) -> Self {
                match self { $(Self::$variant(inner) => Self::$variant(inner.materialize()),)* }
            }

            fn visit<V: burn::module::ModuleVisitor>(&self, visitor: &mut V) {
                match self { $(Self::$variant(inner) => burn::module::Module::visit(inner, visitor),)* }
            }

            fn map<M: burn::module::ModuleMapper>(self, mapper: &mut M) -> Self {
                match self { $(Self::$variant(inner) => Self::$variant(burn::module::Module::map(inner, mapper)),)* }
            }
        }

        impl burn::module::ModuleDisplayDefault for $name {
            fn content(&self, content: burn::module::Content) -> Option<burn::module::Content> {
                match self { $(Self::$variant(inner) => burn::module::ModuleDisplayDefault::content(inner, content),)* }
            }
        }

        impl burn::module::ModuleDisplay for $name {}
    };
}

pub(crate) use one_of;
