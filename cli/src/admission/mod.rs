//! What the API server would say of an object, without an API server: strict decoding, the structural schema and the
//! CEL rules of the CRD.

mod metadata;
mod schema;

use kube_cel::{Validator, compile_schema};
use onespace_core::reason::PolicyFault;
use onespace_core::validate::Finding;
use onespace_crds::SyncPolicy;
use serde_json::Value;

use self::schema::Severity;

/// The checks of SyncPolicies, compiled once.
pub struct Admission {
    schema: Value,
    compiled: kube_cel::CompiledSchema,
    validator: Validator,
}

impl Admission {
    /// Compiles the CRD's own schema and rules.
    ///
    /// # Errors
    /// Never with the types as they are.
    pub fn new() -> anyhow::Result<Self> {
        let schema = onespace_crds::sync_policy_schema()?;
        let compiled = compile_schema(&schema);
        Ok(Self {
            schema,
            compiled,
            validator: Validator::new(),
        })
    }

    /// Decodes a policy that is created, or updated from `old`.
    ///
    /// # Errors
    /// Everything for which the API server would refuse it.
    pub fn decode(&self, policy: &Value, old: Option<&Value>) -> Result<SyncPolicy, Vec<Finding>> {
        // Whatever an author writes into status is dropped.
        let mut policy = policy.clone();
        if let Some(policy) = policy.as_object_mut() {
            policy.remove("status");
        }

        let mut findings = metadata::check(&policy);
        let problems = schema::check(&self.schema, &policy);
        // As the API server does.
        let blocked = problems
            .iter()
            .any(|(severity, _)| *severity == Severity::Blocking);
        findings.extend(problems.into_iter().map(|(_, finding)| finding));
        if !blocked {
            findings.extend(self.rules(&policy, old));
        }
        if !findings.is_empty() {
            return Err(findings);
        }
        serde_json::from_value(policy)
            .map_err(|error| vec![Finding::new("spec", PolicyFault::Invalid, error.to_string())])
    }

    fn rules(&self, policy: &Value, old: Option<&Value>) -> Vec<Finding> {
        let errors = self
            .validator
            .validate_compiled(&self.compiled, policy, old)
            .err();
        let errors = errors
            .map(kube_cel::ValidationErrors::into_vec)
            .unwrap_or_default();
        errors
            .into_iter()
            .map(|error| Finding::new(error.field_path, PolicyFault::Invalid, error.message))
            .collect()
    }
}
