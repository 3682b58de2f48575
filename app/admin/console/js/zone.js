/** Days of a zone as moments. */

const DAY_MS = 86_400_000;

/**
 * The first moment of a zone's day, as the server reckons it. Where midnight comes twice it is the first one; where the
 * clock is put forward over it, the day begins when the midnight of the old time would have been.
 * @param {string} date @param {string} tz @returns {number} milliseconds since 1970 UTC
 */
export function startOfDay(date, tz) {
  const format = new Intl.DateTimeFormat('en-CA', { timeZone: tz, hourCycle: 'h23', year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit', second: '2-digit' });
  const wanted = Date.parse(`${date}T00:00:00Z`);
  const offsetAt = (at) => {
    const parts = Object.fromEntries(format.formatToParts(at).map((part) => [part.type, part.value]));
    return Date.parse(`${parts.year}-${parts.month}-${parts.day}T${parts.hour}:${parts.minute}:${parts.second}Z`) - at;
  };
  const before = wanted - offsetAt(wanted - DAY_MS);
  const after = wanted - offsetAt(wanted + DAY_MS);
  const isMidnight = (at) => at + offsetAt(at) === wanted;
  return [before, after].sort((one, other) => one - other).find(isMidnight) ?? before;
}
