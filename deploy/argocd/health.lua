-- Argo CD's health of a SyncPolicy. In the ConfigMap argocd-cm: resource.customizations.health.onespace.dev_SyncPolicy
local status = obj.status or {}
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

local function is(kind, value)
  return conditions[kind] ~= nil and conditions[kind].status == value
end

local function health(word, kind)
  local condition = conditions[kind]
  local message = condition.reason
  if condition.message ~= nil and condition.message ~= "" then
    message = message .. ": " .. condition.message
  end
  return { status = word, message = message }
end

if obj.metadata.deletionTimestamp ~= nil then
  return { status = "Progressing", message = "it is being deleted" }
end
if status.observedGeneration ~= obj.metadata.generation or conditions.Ready == nil then
  return { status = "Progressing", message = "the operator has not seen this generation yet" }
end
if is("Stalled", "True") then
  return health("Degraded", "Stalled")
end
if is("Degraded", "True") then
  return health("Degraded", "Degraded")
end
if conditions.Ready.reason == "Suspended" then
  return health("Suspended", "Ready")
end
if is("Reconciling", "True") or not is("Ready", "True") then
  return health("Progressing", "Ready")
end
return health("Healthy", "Ready")
