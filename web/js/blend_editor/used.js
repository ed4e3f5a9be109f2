// What a run used of a blend, out of the messages that the server sends when a sampling has ended.

const SAME_LEVEL = 1e-3

// A sampling that goes on in the same run at lower noise (two experts, two samplers) adds to what is known; any other replaces it
export function joinedUse(known, message) {
  const continues = known && known.prompt_id === message.prompt_id && message.noise_levels[0] <= known.noise_levels.at(-1) + SAME_LEVEL
  if (!continues) return message
  const joined = { ...message }
  for (const key of ["stages", "noise_levels", "identity", "motion"]) joined[key] = [...known[key], ...message[key]]
  return joined
}

// [place, least, mean, most] of a side, at each noise level over all depths, or at each depth over all noise levels
export function usedRanges(used, side, axis) {
  const rows = used[side]
  if (axis === "sigma") return rows.map((row, index) => [used.noise_levels[index], ...range(row)])
  const groups = Math.max(...rows.map((row) => row.length))
  const columns = Array.from({ length: groups }, (_, group) => rows.filter((row) => group < row.length).map((row) => row[group]))
  return columns.map((column, group) => [groups > 1 ? group / (groups - 1) : 0, ...range(column)])
}

function range(values) {
  return [Math.min(...values), values.reduce((sum, value) => sum + value, 0) / values.length, Math.max(...values)]
}
