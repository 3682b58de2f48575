/** Days of a zone as moments. */

/** The first moment of a zone's day. @param {string} date @param {string} tz @returns {number} milliseconds since 1970 UTC */
export function startOfDay(date, tz) {
  const format = new Intl.DateTimeFormat('en-CA', { timeZone: tz, hourCycle: 'h23', year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit', second: '2-digit' });
  const wanted = Date.parse(`${date}T00:00:00Z`);
  let at = wanted;
  // Twice: the first guess may lie on the other side of a change of the clock.
  for (let round = 0; round < 2; round += 1) {
    const parts = Object.fromEntries(format.formatToParts(at).map((part) => [part.type, part.value]));
    at += wanted - Date.parse(`${parts.year}-${parts.month}-${parts.day}T${parts.hour}:${parts.minute}:${parts.second}Z`);
  }
  return at;
}
