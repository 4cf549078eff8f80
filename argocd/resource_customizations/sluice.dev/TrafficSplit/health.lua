-- A split is in force when every proxy that has the Service in its view routes by it.
local function health(status, message)
  return { status = status, message = message }
end

if obj.metadata.deletionTimestamp ~= nil then
  return health("Progressing", "It is being deleted")
end

local status = obj.status or {}
if status.observedGeneration ~= obj.metadata.generation then
  return health("Progressing", "Sluice has not counted the proxies that route by it yet")
end

for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Programmed" then
    if condition.status == "True" then
      return health("Healthy", condition.message)
    end
    if condition.reason == "Refused" then
      return health("Degraded", condition.message)
    end
    return health("Progressing", condition.message)
  end
end
return health("Progressing", "Sluice has not counted the proxies that route by it yet")
