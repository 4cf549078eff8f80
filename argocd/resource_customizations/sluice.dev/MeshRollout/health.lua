-- Reconciling and Stalled are there only while they hold; Ready is always there.
local function health(status, message)
  return { status = status, message = message }
end

if obj.metadata.deletionTimestamp ~= nil then
  return health("Progressing", "It is being deleted")
end

local status = obj.status or {}
if status.observedGeneration ~= obj.metadata.generation then
  return health("Progressing", "Sluice has not seen the latest spec yet")
end

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
local ready, moving, stalled = conditions.Ready, conditions.Reconciling, conditions.Stalled

if stalled ~= nil and stalled.status == "True" then
  return health("Degraded", stalled.message)
end
if moving ~= nil and moving.status == "True" then
  -- Nothing goes on before a person says so.
  if moving.reason == "Paused" then
    return health("Suspended", moving.message)
  end
  return health("Progressing", moving.message)
end
if ready == nil then
  return health("Progressing", "Sluice has not said anything yet")
end
if ready.status == "True" then
  return health("Healthy", ready.message)
end
if ready.status == "False" then
  return health("Degraded", ready.message)
end
return health("Progressing", ready.message)
