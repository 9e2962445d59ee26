//! The rules for texts as functions of SQL: `NAME_reason(text)` is why the rule would drop a text, or null if it stays;
//! `NAME_text(text)` is what is left of it, or null if it goes. All with their published bounds.

use datafusion::{
    arrow::{
        array::{ArrayRef, StringViewBuilder},
        compute::cast,
        datatypes::DataType,
    },
    common::cast::as_large_string_array,
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
    prelude::SessionContext,
};
use narthex_base::config::{FilterName, FilterSettings};
use narthex_curate::{
    Document,
    filter::{Filters, Verdict},
};
use rayon::prelude::*;
use std::sync::Arc;

/// Makes the functions known to queries.
pub(crate) fn register(context: &SessionContext) {
    for rule in FilterName::ALL {
        for gives in [Gives::Reason, Gives::Text] {
            context.register_udf(ScalarUDF::new_from_impl(TextFunction::new(rule, gives)));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Gives {
    Reason,
    Text,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TextFunction {
    rule: FilterName,
    gives: Gives,
    name: String,
    signature: Signature,
}

impl TextFunction {
    fn new(rule: FilterName, gives: Gives) -> Self {
        let name = match gives {
            Gives::Reason => format!("{}_reason", rule.name()),
            Gives::Text => format!("{}_text", rule.name()),
        };
        Self { rule, gives, name, signature: Signature::string(1, Volatility::Immutable) }
    }

    fn answer(&self, filters: &Filters, text: &str) -> Option<String> {
        let verdict = filters.ask(self.rule, &Document::new(text));
        match (self.gives, verdict) {
            (Gives::Reason, Verdict::Dropped(reason)) => Some(reason.name.to_string()),
            (Gives::Reason, _) | (Gives::Text, Verdict::Dropped(_)) => None,
            (Gives::Text, Verdict::Changed(text)) => Some(text),
            (Gives::Text, Verdict::Kept) => Some(text.to_string()),
        }
    }
}

impl ScalarUDFImpl for TextFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let texts = cast(&arrays[0], &DataType::LargeUtf8)?;
        let texts: Vec<Option<&str>> = as_large_string_array(&texts)?.iter().collect();
        let filters = Filters::new(vec![self.rule], FilterSettings::default());
        let answers: Vec<Option<String>> = texts.into_par_iter().map(|text| self.answer(&filters, text?)).collect();
        Ok(column(&answers))
    }
}

/// Answers as a column.
pub(crate) fn column(answers: &[Option<String>]) -> ColumnarValue {
    let mut builder = StringViewBuilder::new();
    answers.iter().for_each(|answer| builder.append_option(answer.as_deref()));
    let array: ArrayRef = Arc::new(builder.finish());
    ColumnarValue::Array(array)
}
