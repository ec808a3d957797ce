{{/* What the operator does with policies, wherever they are. */}}
{{- define "onespace.policyRules" -}}
- apiGroups: [onespace.dev]
  resources: [syncpolicies]
  # patch: the finalizer of policies that released objects.
  verbs: [list, watch, patch]
- apiGroups: [onespace.dev]
  resources: [syncpolicies/status]
  verbs: [patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}

{{/* What policies refer to. Watched as metadata, and got when a policy names it; RBAC cannot grant metadata alone. */}}
{{- define "onespace.referenceRules" -}}
- apiGroups: [""]
  resources: [configmaps, secrets]
  verbs: [get, list, watch]
{{- end }}
