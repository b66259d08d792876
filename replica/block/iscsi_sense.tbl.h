/* replica/block/iscsi_sense.tbl.h - what the driver does about an answer that is not
 * GOOD.
 *
 * STATUS(code, name, read, write, error)
 * SENSE(key, asc, ascq, read, write, error, words): the first row that fits decides;
 * ANY fits every value. @read and @write are enum sense_action; @error is answered when
 * the action is SENSE_FAIL, or when its retries or its deadline are used up. "write"
 * means every operation that changes the LUN, and flush.
 */

#ifdef STATUS
STATUS(0x00, "GOOD", SENSE_OK, SENSE_OK, 0)
STATUS(0x08, "BUSY", SENSE_BACK_OFF, SENSE_BACK_OFF, ETIMEDOUT)
STATUS(0x18, "RESERVATION CONFLICT", SENSE_FAIL, SENSE_FAIL, EBADE)
STATUS(0x28, "TASK SET FULL", SENSE_BACK_OFF, SENSE_BACK_OFF, ETIMEDOUT)
/* An aborted write may have been done in part or may come late: only a new session
   behind the barrier may write that range again, so the session is given up. */
STATUS(0x40, "TASK ABORTED", SENSE_RETRY_ONCE, SENSE_GIVE_UP, EIO)
#endif

#ifdef SENSE
SENSE(0x01, ANY, ANY, SENSE_OK, SENSE_OK, EIO, "recovered")

SENSE(0x02, 0x04, 0x01, SENSE_BACK_OFF, SENSE_BACK_OFF, ETIMEDOUT, "becoming ready")
SENSE(0x02, 0x04, 0x0a, SENSE_BACK_OFF, SENSE_BACK_OFF, ETIMEDOUT,
        "access state transition")
SENSE(0x02, ANY, ANY, SENSE_FAIL, SENSE_FAIL, EIO, "not ready")

SENSE(0x03, 0x11, ANY, SENSE_FAIL, SENSE_FAIL, EIO, "unrecovered read error")
SENSE(0x03, 0x0c, ANY, SENSE_FAIL, SENSE_FAIL, EIO, "write error")
SENSE(0x03, ANY, ANY, SENSE_FAIL, SENSE_FAIL, EIO, "medium error")
SENSE(0x04, ANY, ANY, SENSE_FAIL, SENSE_FAIL, EIO, "hardware error")

/* Looked at anew: a LUN that shrank or went away answers ESTALE, else the error stands.
 */
SENSE(0x05, 0x21, ANY, SENSE_LOOK_FAIL, SENSE_LOOK_FAIL, EREMOTEIO,
        "block address out of range")
SENSE(0x05, 0x25, ANY, SENSE_LOOK_FAIL, SENSE_LOOK_FAIL, EREMOTEIO,
        "no such logical unit")
SENSE(0x05, 0x20, ANY, SENSE_FAIL, SENSE_FAIL, EOPNOTSUPP, "invalid operation code")
SENSE(0x05, ANY, ANY, SENSE_FAIL, SENSE_FAIL, EREMOTEIO, "illegal request")

/* Power on or reset: a volatile cache may be gone with writes that were answered GOOD.
 */
SENSE(0x06, 0x29, ANY, SENSE_RETRY_RESET, SENSE_RETRY_RESET, EIO,
        "power on or reset occurred")
SENSE(0x06, 0x2a, 0x09, SENSE_LOOK_RETRY, SENSE_LOOK_RETRY, ESTALE,
        "capacity data has changed")
SENSE(0x06, 0x3f, 0x0e, SENSE_LOOK_RETRY, SENSE_LOOK_RETRY, ESTALE,
        "reported LUNs have changed")
SENSE(0x06, 0x3f, 0x03, SENSE_LOOK_RETRY, SENSE_LOOK_RETRY, ESTALE,
        "inquiry data has changed")
SENSE(0x06, 0x2f, ANY, SENSE_RETRY_ONCE, SENSE_GIVE_UP, EIO,
        "commands cleared by another")
SENSE(0x06, ANY, ANY, SENSE_RETRY_ONCE, SENSE_RETRY_ONCE, EREMOTEIO, "unit attention")

SENSE(0x07, 0x27, 0x07, SENSE_FAIL, SENSE_FAIL, ENOSPC, "thin pool full")
SENSE(0x07, 0x27, ANY, SENSE_FAIL, SENSE_FAIL, EROFS, "write protected")
SENSE(0x07, ANY, ANY, SENSE_FAIL, SENSE_FAIL, EREMOTEIO, "data protected")

SENSE(0x0b, ANY, ANY, SENSE_RETRY_THRICE, SENSE_RETRY_THRICE, EIO, "command aborted")
SENSE(0x0d, ANY, ANY, SENSE_FAIL, SENSE_FAIL, EREMOTEIO, "volume overflow")
SENSE(0x0e, ANY, ANY, SENSE_FAIL, SENSE_FAIL, EREMOTEIO, "miscompare")
SENSE(ANY, ANY, ANY, SENSE_FAIL, SENSE_FAIL, EREMOTEIO, "sense of no known meaning")
#endif
